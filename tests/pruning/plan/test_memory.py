"""Peak memory against a count of the tensors that are alive while a model runs."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.testing import awaken
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.cut import remove_channels
from torch_dag_pruning.plan.memory import PeakMemory
from torch_dag_pruning.plan.plan import Plan


class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return self.c(F.relu(self.b(self.a(x))))


class Residual(Chain):
    def __init__(self):
        super().__init__()
        self.d = nn.Conv2d(8, 16, 1)

    def forward(self, x):
        y = self.a(x)
        return self.c(self.b(y + self.d(F.relu(self.b(y)))))


class Views(nn.Module):
    """Parts of one tensor, which stays as long as the last of them."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 24), nn.Linear(12, 5)

    def forward(self, x):
        first, second = self.a(x).chunk(2, -1)
        return self.b(first.transpose(1, 2).transpose(1, 2) * torch.sigmoid(second))


class Alive(TorchDispatchMode):
    """Adds up the memory of all tensors that are alive after each op."""

    def __init__(self, inputs):
        super().__init__()
        self.found = [weakref.ref(inputs)]
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.found += [weakref.ref(leaf) for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        alive = [tensor for tensor in (ref() for ref in self.found) if tensor is not None]
        blocks = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in alive}
        blocks = {
            address: amount for address, amount in blocks.items() if not any(address == p.data_ptr() for p in self.own)
        }
        self.peak = max(self.peak, sum(blocks.values()))
        return result


def measured(dag, x):
    alive = Alive(x)
    alive.own = list(dag.parameters())
    with torch.no_grad(), alive:
        dag(x)
    return alive.peak / len(x)


CASES = [(Chain, (3, 12, 12)), (Residual, (3, 12, 12)), (Views, (7, 6))]


@pytest.mark.parametrize(("model", "shape"), CASES)
def test_the_peak_is_that_of_the_tensors_that_are_alive(model, shape):
    torch.manual_seed(0)
    x = torch.randn(2, *shape)
    dag = build_from_unstructured_module(awaken(model()).eval(), x)
    assert PeakMemory(analyze(dag, x))({}) == measured(dag, x)


@pytest.mark.parametrize(("model", "shape"), CASES)
def test_the_peak_of_a_plan_is_that_of_the_cut_graph(model, shape):
    torch.manual_seed(0)
    x = torch.randn(2, *shape)
    dag = build_from_unstructured_module(awaken(model()).eval(), x)
    analysis = analyze(dag, x)
    plan = Plan.by_importance(analysis, "random", keep_memory=0.6)
    predicted = PeakMemory(analysis)(plan.atom_counts(analysis))
    assert predicted <= 0.6 * PeakMemory(analysis)({})
    cut = remove_channels(dag, plan, analysis=analysis)
    assert predicted == PeakMemory(analyze(cut, x))({}) == measured(cut, x)


def test_memory_is_known_for_every_network(network_and_input):
    model, x = network_and_input
    dag = build_from_unstructured_module(model, x)
    analysis = analyze(dag, x)
    plan = Plan.random(analysis, 0.6)
    predicted = PeakMemory(analysis)(plan.atom_counts(analysis))
    assert 0 < predicted <= PeakMemory(analysis)({})
    after = analyze(remove_channels(dag, plan, analysis=analysis, verify=False), x)
    assert PeakMemory(after)({}) == pytest.approx(predicted)


class Narrow(nn.Module):
    """A wide beginning, which decides the peak, and an end that does not matter."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 16, 3, padding=1)
        self.c, self.d = nn.Linear(16, 48), nn.Linear(48, 5)

    def forward(self, x):
        return self.d(F.relu(self.c(F.relu(self.b(F.relu(self.a(x)))).mean((2, 3)))))


def test_slots_that_do_not_lower_the_peak_stay():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 12, 12)
    analysis = analyze(build_from_unstructured_module(awaken(Narrow()).eval(), x), x)
    peak = PeakMemory(analysis)
    plan = Plan.by_importance(analysis, "l2", keep_memory=0.5)
    counts = plan.atom_counts(analysis)
    assert peak(counts) <= 0.5 * peak({})
    assert len(plan.kept["c.weight:0"]) == 48
    for orbit in analysis.orbits:
        more = counts | {orbit.atom.id: min(orbit.n, counts[orbit.atom.id] + 1)}
        assert peak(more) > 0.5 * peak({}) or more == counts
