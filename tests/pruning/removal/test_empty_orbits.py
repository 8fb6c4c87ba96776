"""Whole orbits at zero: deleted exactly, and no module of size zero is built."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.cut import Cut, masked_model, removal_proof, remove_channels
from torch_dag_pruning.plan.plan import Plan


@pytest.fixture
def case(network_and_input):
    model, x = network_and_input
    dag = build_from_unstructured_module(model, x)
    return dag, x, analyze(dag, x)


def check(dag, x, analysis, plan):
    smaller = remove_channels(dag, plan, verify=False, analysis=analysis)
    assert removal_proof(analysis, plan, smaller, dtype=torch.float64).worst < 1e-12
    assert all(0 not in tensor.shape for tensor in smaller.state_dict().values())
    more = torch.cat([x, x.flip(0), x])
    wanted = masked_model(dag, plan, analysis=analysis).eval()(more)
    torch.testing.assert_close(smaller.eval()(more), wanted, rtol=1e-4, atol=1e-4)
    return smaller


def test_every_orbit_alone(case):
    dag, x, analysis = case
    for orbit in analysis.orbits:
        if orbit.minimum == 0:
            check(dag, x, analysis, Plan.keeping(analysis, {orbit.key: []}))


@pytest.mark.parametrize("first", [0, 1, 2])
def test_a_third_of_all_at_once(case, first):
    dag, x, analysis = case
    plan = Plan.random(analysis, 0.6, seed=first)
    for orbit in analysis.orbits[first::3]:
        if orbit.minimum == 0:
            plan = plan.with_orbit(orbit.key, [])
    check(dag, x, analysis, plan)


def test_everything_at_once(case):
    dag, x, analysis = case
    check(dag, x, analysis, Plan.keeping(analysis, {o.key: range(o.minimum) for o in analysis.orbits}))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_what_was_empty_before_stays_as_it_is():
    class Branched(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide, self.none = nn.Linear(5, 8), nn.Linear(5, 0)
            self.after_wide, self.after_none = nn.Linear(8, 3), nn.Linear(0, 3)

        def forward(self, x):
            return self.after_wide(self.wide(x).relu()) + self.after_none(self.none(x).relu())

    x = torch.randn(2, 5)
    dag = build_from_unstructured_module(Branched(), x)
    analysis = analyze(dag, x)
    cut = Cut(analysis, Plan.random(analysis, 0.5, seed=0))
    smaller = cut.removed()
    assert cut.prove(smaller).worst < 1e-6
    assert {"none", "after_none"} <= {vertex.name for vertex in smaller.inner_vertices}
    cut.check_costs(smaller)
