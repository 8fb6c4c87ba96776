"""Torch functions that are called by name."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dag_core.ops.torch_call import ALLOWED, OPTIONAL
from torch_dag_pruning.rules.functions import function_rules


def test_rules_describe_allowed_functions():
    optional = {f"{space}.{name}" for space, names in OPTIONAL.items() for name in names}
    named = {f"{space}.{name}" for space, names in ALLOWED.items() for name in names}
    assert set(function_rules()) <= named | optional


def positive(*shape):
    return nn.Parameter(torch.rand(*shape) + 0.5)


VECTOR = {
    "lerp": lambda m, x: torch.lerp(x, m.more(x), torch.sigmoid(m.vector)),
    "lerp_by_a_number": lambda m, x: torch.lerp(x, m.more(x), 0.3),
    "clamp": lambda m, x: torch.clamp(x, -m.vector, m.vector),
    "fmod": lambda m, x: torch.fmod(x, m.vector),
    "logaddexp": lambda m, x: torch.logaddexp(x, m.vector),
    "hypot": lambda m, x: torch.hypot(x, m.vector),
    "atan": lambda _, x: torch.atan(x),
    "logit": lambda _, x: torch.logit(torch.sigmoid(x), 0.1),
    "nan_to_num": lambda _, x: torch.nan_to_num(x),
    "log2": lambda _, x: torch.log2(x.abs() + 1),
    "mv": lambda m, x: x * torch.mv(x, m.vector)[:, None],
    "addmv": lambda m, x: x * torch.addmv(m.pair, x, m.vector)[:, None],
    "inner": lambda m, x: torch.inner(x, m.matrix),
    "tensordot": lambda m, x: torch.tensordot(x, m.matrix, dims=1),
    "tensordot_of_axes": lambda m, x: torch.tensordot(m.matrix, x, dims=([1], [1])).t(),
    "dot": lambda m, x: x * torch.dot(m.vector, m.vector),
    "outer": lambda m, x: x * torch.outer(m.pair, m.vector),
    "vecdot": lambda m, x: x * torch.linalg.vecdot(x, m.more(x))[:, None],
    "norm": lambda _, x: x / torch.linalg.norm(x, dim=-1, keepdim=True),
    "norm_of_order_3": lambda _, x: x / torch.linalg.norm(x, 3, dim=-1, keepdim=True),
    "matrix_norm": lambda _, x: x / torch.linalg.matrix_norm(x),
    "cosine_similarity": lambda m, x: x * F.cosine_similarity(x, m.more(x), dim=1)[:, None],
    "cdist": lambda _, x: torch.cdist(x, x) @ x,
    "prelu": lambda m, x: F.prelu(x, m.vector),
    "dropout": lambda _, x: x + F.alpha_dropout(x, 0.1, training=True),
}


@pytest.mark.parametrize("name", VECTOR)
def test_over_vectors(check, fn, name):
    net = fn(lambda m, x: m.b(VECTOR[name](m, m.a(x))), a=nn.Linear(5, 8), b=nn.Linear(8, 3), more=nn.Linear(8, 8),
             vector=positive(8), pair=positive(2), matrix=positive(8, 8))  # fmt: skip
    analysis = check(net, torch.randn(2, 5), effect=1e-3)
    assert any(orbit.key == "a.weight:0" for orbit in analysis.orbits), str(analysis)


def spectral_filter(m, x):
    return torch.fft.irfft2(torch.fft.rfft2(x, norm="ortho") * torch.view_as_complex(m.filters), s=(8, 8), norm="ortho")


def fourier_unit(m, x):
    spectrum = torch.fft.rfft2(x)
    parts = torch.relu(m.wide(torch.cat([spectrum.real, spectrum.imag], 1)))
    return torch.fft.irfft2(torch.complex(*parts.chunk(2, 1)), s=(8, 8))


def unpooled(_, x):
    values, places = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(values, places, 2)


def scattered(_, x):
    where = torch.arange(8)[None, None, :, None].expand(x.shape)
    return torch.zeros_like(x).scatter_add(2, where, x) + x.cumprod(3)


IMAGE = {
    "spectral_filter": spectral_filter,
    "fourier_unit": fourier_unit,
    "power_spectrum": lambda _, x: torch.fft.fftn(x, dim=(2, 3)).abs(),
    "shifted_spectrum": lambda _, x: torch.fft.fftshift(torch.fft.fft2(x), dim=(2, 3)).real,
    "max_unpool": unpooled,
    "scatter_add": scattered,
    "prelu": lambda m, x: F.prelu(x, m.slopes),
    "instance_norm": lambda m, x: F.instance_norm(x, weight=m.slopes, bias=m.slopes),
    "dropout2d": lambda _, x: F.dropout2d(x, 0.2, training=True),
    "prod": lambda _, x: x * torch.prod(1 + 0.1 * x, 2, keepdim=True),
    "median": lambda _, x: x - x.median(dim=3, keepdim=True).values,
    "any": lambda _, x: x * (x > 1).any(dim=2, keepdim=True),
    "softmin": lambda _, x: F.softmin(x, 3),
    "gumbel_softmax": lambda _, x: F.gumbel_softmax(x, dim=3),
    "take_along_dim": lambda _, x: torch.take_along_dim(x, x.argsort(3), 3),
    "diagonal": lambda _, x: torch.diagonal(x, 0, 2, 3)[..., None],
}


@pytest.mark.parametrize("name", IMAGE)
def test_over_images(check, fn, name):
    net = fn(lambda m, x: m.b(IMAGE[name](m, m.a(x))), a=nn.Conv2d(3, 8, 1), b=nn.Conv2d(8, 3, 1),
             wide=nn.Conv2d(16, 16, 1), slopes=positive(8), filters=positive(8, 8, 5, 2))  # fmt: skip
    analysis = check(net, torch.randn(2, 3, 8, 8), effect=1e-3)
    assert any(orbit.key == "a.weight:0" for orbit in analysis.orbits), str(analysis)


FROZEN = {
    "prod": lambda _, x: x * torch.prod(x, 1, keepdim=True),
    "spectrum": lambda _, x: torch.fft.fft(x).real,
    "local_response": lambda _, x: F.local_response_norm(x[..., None], 3)[..., 0],
    "infinite_norm_of_matrices": lambda _, x: x / torch.linalg.matrix_norm(x, 1),
    "cumprod": lambda _, x: torch.cumprod(x, axis=1),
    "kron": lambda _, x: torch.kron(x, torch.ones(1, 1)),
}


@pytest.mark.parametrize("name", FROZEN)
def test_along_channels_they_freeze(check, fn, name):
    net = fn(lambda m, x: m.b(FROZEN[name](m, m.a(x))), a=nn.Linear(5, 8), b=nn.Linear(8, 3))
    analysis = check(net, torch.randn(2, 5), orbits=[], seeds=[1])
    assert analysis.locked


@pytest.mark.parametrize("normed", [nn.utils.parametrizations.spectral_norm, nn.utils.spectral_norm])
def test_spectral_norm(check, fn, normed):
    """The vectors of the power iteration are states of the model, and are cut with the weight."""
    net = fn(lambda m, x: m.b(m.s(m.a(x))), a=nn.Conv2d(3, 8, 3), s=normed(nn.Conv2d(8, 6, 3)), b=nn.Conv2d(6, 3, 1))
    check(net, torch.randn(2, 3, 8, 8), ops=["state"], orbits=[8, 6])


def test_bags_of_embeddings(check, fn):
    net = fn(lambda m, i: m.b(m.table(i)), table=nn.EmbeddingBag(11, 8), b=nn.Linear(8, 3))
    check(net, torch.randint(0, 11, (2, 7)), orbits=[8])


def test_regions_and_deformable_convolutions(check, fn):
    torchvision = pytest.importorskip("torchvision")

    def forward(m, x):
        x = m.deformed(m.a(x), m.offsets(x), torch.sigmoid(m.masks(x)))
        return m.b(torchvision.ops.roi_align(x, m.regions, 4))

    net = fn(forward, a=nn.Conv2d(3, 8, 1), offsets=nn.Conv2d(3, 36, 3, padding=1),
             masks=nn.Conv2d(3, 18, 3, padding=1), b=nn.Conv2d(6, 3, 1),
             deformed=torchvision.ops.DeformConv2d(8, 6, 3, padding=1))  # fmt: skip
    net.register_buffer("regions", torch.tensor([[0.0, 0, 0, 6, 6], [1.0, 1, 1, 7, 7]]))
    check(net, torch.randn(2, 3, 8, 8), orbits=[6, 4], seeds=[1])
