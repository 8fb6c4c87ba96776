"""Reshapes, cuts, joins and copies."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F


def heads(x, count):
    return x.reshape(*x.shape[:2], count, -1).transpose(1, 2)


def test_heads_and_back(check, fn):
    net = fn(lambda m, x: m.b(heads(m.a(x), 4).transpose(1, 2).flatten(2)), a=nn.Linear(5, 12), b=nn.Linear(12, 3))
    check(net, torch.randn(2, 7, 5), ops=["reshape", "permute"], orbits=[4, 3])


def test_fused_projection(check, fn):
    def forward(m, x):
        q, k, v = m.qkv(x).reshape(len(x), 7, 3, 4, 3).permute(2, 0, 3, 1, 4).unbind(0)
        return m.b((torch.softmax(q @ k.transpose(-2, -1) * 0.5, -1) @ v).transpose(1, 2).reshape(len(x), 7, 12))

    check(
        fn(forward, qkv=nn.Linear(5, 36), b=nn.Linear(12, 3)),
        torch.randn(2, 7, 5),
        ops=["unbind", "get_item"],
        orbits=[4, 3],
    )


def test_split_projection_frees_the_value(check, fn):
    def forward(m, x):
        q, k, v = m.qkv(x).split([6, 6, 10], -1)
        return m.b(torch.softmax(q @ k.transpose(-2, -1) * 0.5, -1) @ v)

    check(fn(forward, qkv=nn.Linear(5, 22), b=nn.Linear(10, 3)), torch.randn(2, 7, 5), ops=["split"], orbits=[6, 10])


def test_chunks_of_other_sizes_after_pruning(check, fn):
    def forward(m, x):
        a, b = m.a(x).chunk(2, -1)
        return m.b(F.relu(a)) + m.c(b)

    net = fn(forward, a=nn.Linear(5, 16), b=nn.Linear(8, 3), c=nn.Linear(8, 3))
    check(net, torch.randn(2, 5), orbits=[8, 8])


def test_cat(check, fn):
    def forward(m, x):
        a, b = m.a(x), m.b(x)
        return m.c(torch.cat([a, b, a], 1)) + m.d(torch.cat([b, a.detach()], 1))

    net = fn(forward, a=nn.Linear(5, 6), b=nn.Linear(5, 8), c=nn.Linear(20, 3), d=nn.Linear(14, 3))
    check(net, torch.randn(2, 5), ops=["cat"], orbits=[6, 8])


def test_cat_into_groups(check, fn):
    def forward(m, x):
        return m.c(m.norm(torch.cat([m.a(x), m.b(x)], 1)))

    net = fn(forward, a=nn.Conv2d(3, 32, 1), b=nn.Conv2d(3, 64, 1), norm=nn.GroupNorm(8, 96), c=nn.Conv2d(96, 3, 1))
    check(net, torch.randn(2, 3, 4, 4), ops=["cat", "group_norm"])


def test_stack(check, fn):
    net = fn(
        lambda m, x: m.c(torch.stack([m.a(x), m.b(x)], 1)).sum(1),
        a=nn.Linear(5, 8),
        b=nn.Linear(5, 8),
        c=nn.Linear(8, 3),
    )
    check(net, torch.randn(2, 5), ops=["stack"], orbits=[8])


def test_shared_keys_and_values(check, fn):
    """Grouped queries: key heads go whole, and the same query of every group."""

    def forward(m, x):
        q, k, v = heads(m.q(x), 6), heads(m.k(x), 2), heads(m.v(x), 2)
        k, v = (t[:, :, None].expand(-1, -1, 3, -1, -1).flatten(1, 2) for t in (k, v))
        return m.o((torch.softmax(q @ k.transpose(-2, -1) / 2, -1) @ v).transpose(1, 2).flatten(2))

    net = fn(forward, q=nn.Linear(5, 24), k=nn.Linear(5, 8), v=nn.Linear(5, 8), o=nn.Linear(24, 3))
    check(net, torch.randn(2, 7, 5), ops=["expand"], orbits=[3, 2, 4, 4])


def test_an_expanded_token_follows_the_batch(check, fn):
    net = fn(
        lambda m, x: m.b(torch.cat([m.token.expand(x.shape[0], -1, -1), m.a(x)], 1)),
        a=nn.Linear(5, 8), b=nn.Linear(8, 3), token=nn.Parameter(torch.randn(1, 1, 8)),
    )  # fmt: skip
    check(net, torch.randn(2, 7, 5), ops=["expand", "cat"], orbits=[8])


def test_expand_as(check, fn):
    net = fn(
        lambda m, x: m.c(m.b(x).mean(1, keepdim=True).expand_as(m.a(x)) * m.a(x)),
        a=nn.Linear(5, 8), b=nn.Linear(5, 4), c=nn.Linear(8, 3),
    )  # fmt: skip
    check(net, torch.randn(2, 5), orbits=[8, 4])


def test_repeats(check, fn):
    net = fn(
        lambda m, x: m.b(m.a(x).repeat(1, 2)) + m.c(m.a(x).repeat_interleave(2, 1)),
        a=nn.Linear(5, 8), b=nn.Linear(16, 3), c=nn.Linear(16, 3),
    )  # fmt: skip
    check(net, torch.randn(2, 5), ops=["repeat", "repeat_interleave"], orbits=[8])


def half(x):
    a, b = x.chunk(2, -1)
    return torch.cat([-b, a], -1)


def pairs(x):
    return torch.stack([-x[..., 1::2], x[..., ::2]], -1).reshape(x.shape)


@pytest.mark.parametrize("rotate", [half, pairs])
def test_both_parts_of_a_rotated_pair_go_together(check, fn, rotate):
    def forward(m, x):
        q = m.a(x)
        return m.b(q * m.cos + rotate(q) * m.sin)

    tables = {"cos": nn.Parameter(torch.randn(7, 8)), "sin": nn.Parameter(torch.randn(7, 8))}
    check(fn(forward, a=nn.Linear(5, 8), b=nn.Linear(8, 3), **tables), torch.randn(2, 7, 5), orbits=[4])


def test_flatten_modules(check, fn):
    net = fn(
        lambda m, x: m.b(m.flat(m.a(x))) + m.c(m.unflat(m.flat(m.a(x)))).mean((2, 3)),
        a=nn.Conv2d(3, 8, 1), flat=nn.Flatten(), unflat=nn.Unflatten(1, (8, 4, 4)), b=nn.Linear(128, 3),
        c=nn.Conv2d(8, 3, 1),
    )  # fmt: skip
    check(net, torch.randn(2, 3, 4, 4), orbits=[8])


def test_windows_merged_into_the_batch(check, fn):
    def forward(m, x):
        b, h, w, _ = x.shape
        x = m.a(x)
        x = x.view(b, h // 2, 2, w // 2, 2, -1).permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, 8)
        x = m.norm(m.b(x) + m.bias)
        x = x.view(b, h // 2, w // 2, 2, 2, -1).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, 8)
        x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
        return m.c(x)

    net = fn(
        forward, a=nn.Linear(3, 8), b=nn.Linear(8, 8), bias=nn.Parameter(torch.randn(4, 8)), norm=nn.LayerNorm(8),
        c=nn.Linear(32, 3),
    )  # fmt: skip
    check(net, torch.randn(2, 4, 4, 3), orbits=[8, 8])


def test_filled_tensors(check, fn):
    def forward(m, x):
        x = m.a(x)
        ramp = torch.linspace(0, 1, x.shape[1]) + torch.arange(x.shape[1])
        return m.b(x + torch.zeros_like(x) + torch.full((x.shape[0], 7, 8), 0.5) + ramp[:, None])

    net = fn(forward, a=nn.Linear(5, 8), b=nn.Linear(8, 3))
    check(net, torch.randn(2, 7, 5), orbits=[8])
