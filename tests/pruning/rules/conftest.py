"""One check for every rule: random hard masks, masked against removed at every vertex, in double precision."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.plugins.loading import default_registry
from torch_dag_core.testing import awaken
from torch_dag_pruning import Plan, analyze
from torch_dag_pruning.cut import Cut, removal_proof


class Fn(nn.Module):
    """A network written as its layers and one function of them and the inputs."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs):
        return self.function(self, *inputs)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def ops_of(dag):
    registry = default_registry()
    specs = (registry.for_module(vertex.module) for vertex in dag.inner_vertices)
    return {spec.key.removeprefix("core.") for spec in specs if spec is not None}


def check(model, *inputs, ops=(), **expected):
    """Convert, prune at random and compare; return the analysis."""
    dag = build_from_unstructured_module(awaken(model).eval(), tuple(inputs))
    missing = set(ops) - ops_of(dag)
    assert not missing, f"the network does not exercise {missing}: {dag}"
    return check_dag(dag, *inputs, **expected)


def check_dag(dag, *inputs, orbits=None, seeds=(1, 2), effect=0.01, free_outputs=()):
    """Prune at random and compare; return the analysis."""
    analysis = analyze(dag, tuple(inputs), free_outputs=free_outputs)
    if orbits is not None:
        assert sorted(orbit.n for orbit in analysis.orbits) == sorted(orbits), str(analysis)
    for seed in seeds:
        plan = Plan.random(analysis, 0.6, seed)
        pruned = Cut(analysis, plan).removed()
        proof = removal_proof(analysis, plan, pruned, dtype=torch.float64)
        assert proof.worst < 1e-12, str(proof)
        if analysis.orbits:
            assert proof.effect > effect, str(proof)
        counts = {orbit.atom.id: len(plan.kept[orbit.key]) for orbit in analysis.orbits}
        assert analysis.parameters_count(counts) == sum(p.numel() for p in pruned.parameters())
        if not free_outputs:
            assert analyze(pruned, tuple(inputs)).cost() == pytest.approx(analysis.cost(counts), rel=1e-12)
    return analysis


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(name="check")
def _check():
    return check


@pytest.fixture(name="fn")
def _fn():
    return Fn


@pytest.fixture(name="check_dag")
def _check_dag():
    return check_dag
