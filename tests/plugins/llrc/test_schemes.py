"""Costs of factored layers, against the cost of the factors built as real modules."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from torch_dag_llrc import LowRankConfig, analyze_ranks

GEOMETRIES = {
    "3x3": {"kernel_size": 3, "padding": 1},
    "unpadded": {"kernel_size": 3},
    "strided": {"kernel_size": 3, "stride": 2, "padding": 1},
    "oblong": {"kernel_size": (5, 3), "stride": (2, 1), "padding": (2, 0)},
    "dilated": {"kernel_size": 3, "dilation": 2, "padding": 2},
    "row": {"kernel_size": (1, 7), "padding": (0, 3)},
    "reflected": {"kernel_size": 3, "padding": 1, "padding_mode": "reflect"},
    "same": {"kernel_size": (3, 5), "padding": "same"},
}
M, N, SIZE = 12, 10, (13, 11)


def pair(value):
    return value if isinstance(value, tuple) else (value, value)


def axis(geometry, index):
    """Return the options of a convolution along one axis only."""
    kernel, stride, padding, dilation = (
        pair(geometry.get(name, default))[index]
        for name, default in (("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1))
    )
    place = [(kernel, 1), (1, kernel)][index]
    along = [(stride, 1), (1, stride)][index]
    spread = [(dilation, 1), (1, dilation)][index]
    if geometry.get("padding") == "same":
        return {"kernel_size": place, "stride": along, "dilation": spread, "padding": "same"}
    return {"kernel_size": place, "stride": along, "dilation": spread, "padding": [(padding, 0), (0, padding)][index]}


def factors(scheme, geometry, k, *, bias):
    """Build the factors of a convolution M -> N as modules."""
    if scheme == "in":
        return [nn.Conv2d(M, k, 1, bias=False), nn.Conv2d(k, N, **geometry, bias=bias)]
    if scheme == "out":
        return [nn.Conv2d(M, k, **geometry, bias=False), nn.Conv2d(k, N, 1, bias=bias)]
    if scheme == "spatial":
        mode = {"padding_mode": geometry.get("padding_mode", "zeros")}
        first, second = {**axis(geometry, 0), **mode}, {**axis(geometry, 1), **mode}
        return [nn.Conv2d(M, k, **first, bias=False), nn.Conv2d(k, N, **second, bias=bias)]
    r1, r2 = min(k, M), min(k, N)
    middle = nn.Conv2d(r1, r2, **geometry, bias=False)
    return [nn.Conv2d(M, r1, 1, bias=False), middle, nn.Conv2d(r2, N, 1, bias=bias)]


def analyze(dag, shape, **settings):
    return analyze_ranks(dag, shape, LowRankConfig(keep_flops=1.0, training_steps=1, **settings))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("scheme", ["in", "out", "spatial", "tucker2"])
def test_every_rank_costs_what_its_factors_cost(chain, flops, scheme, geometry, bias):
    geometry = GEOMETRIES[geometry]
    shape = (M, *SIZE)
    layer = nn.Conv2d(M, N, **geometry, bias=bias)
    report = analyze(chain(layer), shape, scheme=scheme, rank_multiple=1)
    if scheme == "spatial" and 1 in pair(geometry["kernel_size"]):
        assert "no rank of at least 1 in scheme 'spatial'" in report.skipped[0].reason
        return
    (candidate,) = report.candidates
    (table,) = candidate.tables
    assert candidate.flops == report.flops == flops(chain(layer), shape)
    for k in (1, 2, 5, table.break_even, table.max_rank):
        parts = factors(scheme, geometry, k, bias=bias)
        assert table.flops(k) == flops(chain(*parts), shape)
        assert nn.Sequential(*parts)(torch.zeros(1, *shape)).shape == layer(torch.zeros(1, *shape)).shape


@pytest.mark.parametrize("rows", [(), (7,), (5, 7)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_of_any_rank(chain, flops, rows, bias):
    shape = (*rows, 20)
    (candidate,) = analyze(chain(nn.Linear(20, 30, bias=bias)), shape, rank_multiple=1).candidates
    (table,) = candidate.tables
    assert (table.scheme, table.max_rank) == ("linear", 20)
    for k in range(1, 21):
        assert table.flops(k) == flops(chain(nn.Linear(20, k, bias=False), nn.Linear(k, 30, bias=bias)), shape)


def test_a_strided_pointwise_convolution_is_thinned_after_its_stride(chain, flops):
    (candidate,) = analyze(chain(nn.Conv2d(M, N, 1, 2)), (M, *SIZE), rank_multiple=1).candidates
    parts = [nn.Conv2d(M, 3, 1, 2, bias=False), nn.Conv2d(3, N, 1)]
    assert [table.scheme for table in candidate.tables] == ["linear"]
    assert candidate.cost(3) == flops(chain(*parts), (M, *SIZE))


@pytest.mark.parametrize("scheme", ["in", "out", "spatial", "tucker2"])
@pytest.mark.parametrize("geometry", ["3x3", "strided", "oblong"])
def test_break_even_is_the_last_rank_that_pays(chain, scheme, geometry):
    dag = chain(nn.Conv2d(M, N, **GEOMETRIES[geometry]))
    (candidate,) = analyze(dag, (M, *SIZE), scheme=scheme, rank_multiple=1).candidates
    (table,) = candidate.tables
    paying = [k for k in range(1, table.max_rank + 1) if table.flops(k) < candidate.flops]
    assert table.break_even == max(paying, default=0)


@pytest.mark.parametrize("geometry", ["3x3", "strided", "oblong", "dilated"])
def test_full_rank_loses_nothing(geometry):
    """Factors of the largest rank from the singular values of the weight compute the layer itself."""
    torch.manual_seed(0)
    geometry = GEOMETRIES[geometry]
    layer = nn.Conv2d(M, N, **geometry, bias=False).double()
    weight = layer.weight.detach()
    height, width = weight.shape[2:]
    ranks = {"in": min(M, N * height * width), "out": min(N, M * height * width), "spatial": min(M * height, N * width)}
    flat = {"in": weight.transpose(0, 1).reshape(M, -1), "out": weight.reshape(N, -1)}
    flat["spatial"] = weight.permute(1, 2, 0, 3).reshape(M * height, N * width)
    x = torch.randn(2, M, *SIZE, dtype=torch.float64)
    for scheme, k in ranks.items():
        first, second = factors(scheme, geometry, k, bias=False)
        u, s, v = torch.linalg.svd(flat[scheme], full_matrices=False)
        assert len(s) == k
        fill(scheme, first, second, u * s, v, (k, height, width))
        assert torch.allclose(second(first(x)), layer(x), rtol=0, atol=1e-12)


def fill(scheme, first, second, left, right, sizes):
    """Give two factors the halves of a decomposed weight."""
    k, height, width = sizes
    first.weight, second.weight = map(nn.Parameter, _HALVES[scheme](left, right, k, height, width))


_HALVES = {
    "in": lambda u, v, k, h, w: (u.T.reshape(k, M, 1, 1), v.reshape(k, N, h, w).transpose(0, 1)),
    "out": lambda u, v, k, h, w: (v.reshape(k, M, h, w), u.reshape(N, k, 1, 1)),
    "spatial": lambda u, v, k, h, w: (
        u.reshape(M, h, k).permute(2, 0, 1)[..., None],
        v.reshape(k, N, w).transpose(0, 1)[:, :, None],
    ),
}


def test_a_rank_out_of_range_is_refused(chain):
    (candidate,) = analyze(chain(nn.Linear(20, 30)), (20,), rank_multiple=1).candidates
    for rank in (0, 21):
        with pytest.raises(ValueError, match=rf"has the ranks 1\.\.20, got {rank}"):
            candidate.tables[0].flops(rank)
        with pytest.raises(ValueError, match=f"'a' has no rank {rank} of scheme None; it has linear 1..20"):
            candidate.cost(rank)


def test_ratios_follow_the_formulas(chain):
    """k (m + n) against m n: a rank of m n / (m + n) breaks even."""
    (candidate,) = analyze(chain(nn.Linear(64, 192, bias=False)), (64,), rank_multiple=1).candidates
    assert candidate.tables[0].break_even == math.ceil(64 * 192 / 256) - 1
