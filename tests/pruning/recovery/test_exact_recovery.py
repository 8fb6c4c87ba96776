"""Slots that others can stand for exactly: removing them must leave the outputs as they were."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.testing import awaken
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.axes import atoms
from torch_dag_pruning.axes.masking import mask
from torch_dag_pruning.cut import Cut
from torch_dag_pruning.plan.plan import Plan
from torch_dag_pruning.recovery import agenda as agenda_module

EVERYWHERE = 10**6


class Grouped(nn.Module):
    shape, orbit = (3, 9, 9), "b.weight:1"

    def __init__(self):
        super().__init__()
        self.a, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(12, 5, 1)
        self.b = nn.Conv2d(8, 12, 3, stride=2, dilation=2, padding=2, groups=2)

    def forward(self, x):
        return self.c(F.relu(self.b(F.relu(self.a(x)))))


class Concatenated(nn.Module):
    shape, orbit = (3, 8, 8), "left.weight:0"

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 5, 1)
        self.mix, self.head = nn.Conv2d(11, 8, 3, padding=1, bias=False), nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(torch.cat([self.left(x), self.right(x)], 1))
        return self.head(F.relu(self.mix(x)).mean((2, 3)))


class Normed(nn.Module):
    shape, orbit = (3, 8, 8), "a.weight:0"

    def __init__(self):
        super().__init__()
        self.a, self.inner = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.b, self.outer = nn.Conv2d(8, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = F.relu(self.inner(self.a(x)))
        return self.head(F.relu(self.outer(self.b(x))).mean((2, 3)))


class Residual(nn.Module):
    shape, orbit = (3, 8, 8), "stem.weight:0"

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 7, 3, padding=1), nn.Conv2d(7, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.stem(x))
        return self.head((x + self.b(F.relu(self.a(x)))).mean((2, 3)))


class Transposed(nn.Module):
    shape, orbit = (3, 5, 5), "a.weight:0"

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.ConvTranspose2d(8, 6, 3, 2, 1, 1, groups=2)
        self.head = nn.Conv2d(6, 3, 1)

    def forward(self, x):
        return self.head(F.relu(self.b(self.a(x).tanh())))


class SharedCalls(nn.Module):
    shape, orbit = (3,), "first.weight:0"

    def __init__(self):
        super().__init__()
        self.first, self.again, self.last = nn.Linear(3, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.first(x))
        return self.last(F.relu(self.again(F.relu(self.again(x)))))


class Heads(nn.Module):
    """Grouped queries: 2 key heads, each for 2 query heads."""

    shape, orbit, keys = (5, 6), "query.weight:0/0", 2

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = nn.Linear(6, 16), nn.Linear(6, 4 * self.keys), nn.Linear(6, 4 * self.keys)
        self.out = nn.Linear(16, 6, bias=False)

    def split(self, x):
        return x.reshape(x.shape[0], x.shape[1], -1, 4).transpose(1, 2)

    def attend(self, q, k, v):
        k, v = k.repeat_interleave(4 // self.keys, 1), v.repeat_interleave(4 // self.keys, 1)
        return F.scaled_dot_product_attention(q, k, v)

    def forward(self, x):
        mixed = self.attend(*(self.split(layer(x)) for layer in (self.query, self.key, self.value)))
        return self.out(mixed.transpose(1, 2).reshape(x.shape[0], x.shape[1], 16))


class AllHeads(Heads):
    keys = 4


class QueriesOfEachKey(Heads):
    orbit = "query.weight:0/1"

    def attend(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


NETWORKS = [Grouped, Concatenated, Normed, Residual, Transposed, SharedCalls, Heads, AllHeads, QueriesOfEachKey]


def prepared(network):
    torch.manual_seed(0)
    x = torch.randn(60, *network.shape, dtype=torch.float64)
    model = awaken(network()).eval().double()
    dag = build_from_unstructured_module(model, x[:2])
    return dag, analyze(dag, x[:2]), x


def positions(axis, atom, slot):
    """Return where a slot of an atom lies along an axis."""
    masks = {each.id: torch.ones(each.n) for each in atoms(axis)}
    masks[atom.id] = torch.zeros(atom.n).index_fill(0, torch.tensor(slot), 1.0)
    return mask(axis, masks).nonzero().flatten()


@torch.no_grad()
def duplicate(dag, analysis, orbit, kept, copy):
    """Make a slot equal to another one wherever it is made; what reads it keeps its own weights."""
    tensors = dict(dag.named_parameters()) | dict(dag.named_buffers())
    for place in orbit.places:
        name = f"{place.vertex}.{place.tensor}"
        if name not in tensors:
            continue  # a later call of a module
        axis = analysis.parameter_axes[name][place.dim]
        source, target = (positions(axis, orbit.atom, slot) for slot in (kept, copy))
        tensors[name].index_copy_(place.dim, target, tensors[name].index_select(place.dim, source))


def orbit_at(analysis, key):
    return next(orbit for orbit in analysis.orbits if orbit.key == key or key in map(str, orbit.places))


def without(analysis, orbit, slot):
    return Cut(analysis, Plan.keeping(analysis, {orbit.key: [other for other in range(orbit.n) if other != slot]}))


@pytest.mark.parametrize("target", ["local", "residual"])
@pytest.mark.parametrize("network", NETWORKS)
@torch.no_grad()
def test_a_duplicate_can_go_without_a_trace(network, target):
    dag, analysis, x = prepared(network)
    orbit = orbit_at(analysis, network.orbit)
    duplicate(dag, analysis, orbit, 0, 1)
    before, cut = dag(x), without(analysis, orbit, 1)
    removed = cut.removed()
    recovery = cut.recover(removed, [x], alpha=0.0, positions=EVERYWHERE, target=target, batch_norm="keep")
    scale = float(before.abs().max())
    assert float((removed(x) - before).abs().max()) > 1e-3 * scale
    assert float((recovery.dag(x) - before).abs().max()) < 1e-10 * scale
    assert recovery.error_after < 1e-10
    assert recovery.error_before > 1e-3


@torch.no_grad()
def test_a_linear_combination_can_go_without_a_trace():
    dag, analysis, x = prepared(Concatenated)
    left, right = dag.left, dag.right
    left.weight.zero_()
    left.weight[:, :, 1, 1] = torch.randn(6, 3, dtype=torch.float64)  # points, as the other branch has them
    dag.relu.register_forward_hook(lambda _module, given, _result: given[0])  # nothing bends between the two
    left.weight[3, :, 1, 1] = 2 * left.weight[0, :, 1, 1] - right.weight[4, :, 0, 0]
    left.bias[3] = 2 * left.bias[0] - right.bias[4] + 0.7
    before, cut = dag(x), without(analysis, orbit_at(analysis, "left.weight:0"), 3)
    assert float((cut.recover(cut.removed(), [x], method="mean").dag(x) - before).abs().max()) > 1e-2
    recovery = cut.recover(cut.removed(), [x], alpha=0.0, positions=EVERYWHERE)
    assert float((recovery.dag(x) - before).abs().max()) < 1e-10 * float(before.abs().max())


@pytest.mark.parametrize("alpha", [None, 0.0, 1e-3, 1.0])
@pytest.mark.parametrize("network", NETWORKS)
def test_where_nothing_is_removed_weights_stay(network, alpha, monkeypatch):
    _, analysis, x = prepared(network)
    cut = Cut(analysis, Plan.whole(analysis))
    removed = cut.removed()
    everything = {vertex.name for vertex in removed.inner_vertices}
    monkeypatch.setattr(agenda_module, "changed_vertices", lambda *_: everything)
    recovery = cut.recover(removed, [x], alpha=alpha, batch_norm="match")
    assert recovery.layers
    wanted, given = dict(removed.named_parameters()), dict(recovery.dag.named_parameters())
    for name, parameter in wanted.items():
        assert float((given[name] - parameter).detach().abs().max()) <= 1e-12, name
    added = {name for name in given if name not in wanted}
    assert all(float(given[name].detach().abs().max()) <= 1e-12 for name in added)
