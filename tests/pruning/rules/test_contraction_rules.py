"""Linear maps, convolutions of every grouping, products."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F


def test_linear_chain(check, fn):
    net = fn(lambda m, x: m.b(F.relu(m.a(x))), a=nn.Linear(5, 8), b=nn.Linear(8, 3))
    check(net, torch.randn(2, 5), ops=["linear"], orbits=[8])


def test_linear_without_bias_on_tokens(check, fn):
    net = fn(lambda m, x: m.b(F.gelu(m.a(x))), a=nn.Linear(5, 8, bias=False), b=nn.Linear(8, 3, bias=False))
    check(net, torch.randn(2, 7, 5), orbits=[8])


def test_bilinear(check, fn):
    net = fn(
        lambda m, x: m.c(F.relu(m.mix(m.a(x), m.b(x)))),
        a=nn.Linear(5, 6), b=nn.Linear(5, 8), mix=nn.Bilinear(6, 8, 10), c=nn.Linear(10, 3),
    )  # fmt: skip
    check(net, torch.randn(2, 5), ops=["bilinear"], orbits=[6, 8, 10])


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(
    ("groups", "out", "orbits"), [(1, 12, [8, 12]), (4, 12, [4, 2, 3]), (8, 8, [8]), (8, 16, [8, 2])]
)
def test_convolution_of_any_grouping(check, fn, rank, groups, out, orbits):
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    net = fn(
        lambda m, x: m.c(F.relu(m.b(F.relu(m.a(x))))),
        a=conv(3, 8, 3, padding=1), b=conv(8, out, 3, padding=1, groups=groups), c=conv(out, 4, 1),
    )  # fmt: skip
    check(net, torch.randn(2, 3, *[6, 5, 4][:rank]), ops=[f"conv{rank}d"], orbits=orbits)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize(("groups", "orbits"), [(1, [8, 12]), (4, [4, 2, 3])])
def test_transposed_convolution(check, fn, rank, groups, orbits):
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    transposed = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[rank - 1]
    net = fn(
        lambda m, x: m.c(F.relu(m.b(F.relu(m.a(x))))),
        a=conv(3, 8, 1), b=transposed(8, 12, 2, stride=2, groups=groups), c=conv(12, 4, 1),
    )  # fmt: skip
    check(net, torch.randn(2, 3, *[5, 4, 3][:rank]), ops=[f"conv_transpose{rank}d"], orbits=orbits)


def test_a_convolution_that_slides_over_channels_freezes_them(check, fn):
    def squeeze(m, x):
        x = F.relu(m.a(x))
        gate = m.eca(x.mean((2, 3)).unsqueeze(1)).squeeze(1).sigmoid()
        return m.b(x * gate[:, :, None, None])

    net = fn(squeeze, a=nn.Conv2d(3, 8, 3), eca=nn.Conv1d(1, 1, 3, padding=1), b=nn.Conv2d(8, 4, 1))
    analysis = check(net, torch.randn(2, 3, 6, 6), orbits=[])
    assert any("eca" in cause.vertex for cause in analysis.locked)


def test_a_convolution_of_kernel_one_passes_its_space(check, fn):
    """Tokens as channels: the embedding is the space of a 1x1 convolution."""
    net = fn(lambda m, x: m.b(F.relu(m.mix(m.a(x)))), a=nn.Linear(5, 8), mix=nn.Conv1d(7, 7, 1), b=nn.Linear(8, 3))
    check(net, torch.randn(2, 7, 5), orbits=[8])


def test_weight_standardised_convolution(check, fn):
    def standardised(m, x):
        weight = m.b.weight
        var, mean = torch.var_mean(weight, (1, 2, 3), keepdim=True, correction=0)
        return m.c(F.relu(F.conv2d(F.relu(m.a(x)), (weight - mean) / (var + 1e-5).sqrt(), m.b.bias, padding=1)))

    net = fn(standardised, a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(8, 10, 3), c=nn.Conv2d(10, 4, 1))
    check(net, torch.randn(2, 3, 6, 6), ops=["convolution", "var_mean"], orbits=[8, 10])


def test_batch_norm_standardised_weight(check, fn):
    def standardised(m, x):
        weight = m.b.weight
        flat = F.batch_norm(weight.reshape(1, 10, -1), None, None, training=True, momentum=0.0)
        return m.c(F.relu(F.conv2d(F.relu(m.a(x)), flat.reshape_as(weight), padding=1)))

    net = fn(standardised, a=nn.Conv2d(3, 8, 3), b=nn.Conv2d(8, 10, 3), c=nn.Conv2d(10, 4, 1))
    check(net, torch.randn(2, 3, 6, 6), ops=["batch_norm_function", "convolution"], orbits=[8, 10])


def test_functional_linear_and_transposed(check, fn):
    def forward(m, x):
        x = F.linear(F.relu(m.a(x)), m.w.weight * 2, m.w.bias)
        x = F.conv_transpose1d(x[:, :, None], m.t.weight * 2, m.t.bias, groups=2)
        return m.b(F.relu(x.squeeze(-1)))

    net = fn(forward, a=nn.Linear(5, 8), w=nn.Linear(8, 6), t=nn.ConvTranspose1d(6, 4, 1, groups=2), b=nn.Linear(4, 3))
    check(net, torch.randn(2, 5), ops=["linear_function", "transposed_convolution"])


def test_products_of_activations(check, fn):
    net = fn(
        lambda m, x: m.c((m.a(x) @ m.b(x).transpose(1, 2)) @ m.v(x)),
        a=nn.Linear(5, 8), b=nn.Linear(5, 8), v=nn.Linear(5, 6), c=nn.Linear(6, 3),
    )  # fmt: skip
    check(net, torch.randn(2, 7, 5), ops=["matmul"], orbits=[8, 6])


def test_a_product_with_itself(check, fn):
    def forward(m, x):
        y = F.relu(m.a(x))
        return y @ y.transpose(1, 2)

    check(fn(forward, a=nn.Linear(5, 8)), torch.randn(2, 7, 5), orbits=[8])


def test_a_free_weight(check, fn):
    net = fn(
        lambda m, x: F.relu(x @ m.w) @ m.v @ m.v.t(),
        w=nn.Parameter(torch.randn(5, 8)),
        v=nn.Parameter(torch.randn(8, 6)),
    )
    check(net, torch.randn(2, 5), ops=["matmul", "free_parameter"])


@pytest.mark.parametrize(
    "equation", ["bnd,bmd->bnm", "b n d, b m d -> b n m", "...nd,...md->...nm", "bnd,bmd", "bnd,bmd->nm"]
)
def test_einsum(check, fn, equation):
    net = fn(lambda m, x: torch.einsum(equation, m.a(x), m.b(x)), a=nn.Linear(5, 8), b=nn.Linear(5, 8))
    check(net, torch.randn(2, 7, 5), ops=["einsum"], orbits=[8])


def test_einsum_over_several_letters(check, fn):
    def forward(m, x):
        x = F.relu(m.a(x)).unflatten(-1, (4, 2))
        return torch.einsum("bnhd,hde->bne", x, m.w)

    net = fn(forward, a=nn.Linear(5, 8), w=nn.Parameter(torch.randn(4, 2, 3)))
    check(net, torch.randn(2, 7, 5), ops=["einsum"], orbits=[4, 2])


def test_the_diagonal_in_einsum(check, fn):
    net = fn(lambda m, x: torch.einsum("bnn->b", m.a(x) @ m.b(x).transpose(1, 2)), a=nn.Linear(5, 8), b=nn.Linear(5, 8))
    check(net, torch.randn(2, 7, 5), ops=["einsum"], orbits=[8])
