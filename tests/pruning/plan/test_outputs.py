"""Output channels that may go on request, and the report of those that are left."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.testing import awaken
from torch_dag_pruning.cut import remove_channels
from torch_dag_pruning.errors import PlanError
from torch_dag_pruning.one_shot import OneShotChannelPruning
from torch_dag_pruning.plan.outputs import analyze_freed, kept_outputs
from torch_dag_pruning.plan.plan import Plan


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.head, self.side = nn.Linear(6, 12), nn.Linear(12, 10), nn.Linear(12, 5)

    def forward(self, x):
        x = F.relu(self.a(x))
        return self.head(x).log_softmax(-1), self.side(x)


@pytest.fixture
def dag():
    torch.manual_seed(0)
    return build_from_unstructured_module(awaken(Net()).eval(), torch.randn(2, 6))


def test_channels_of_outputs_go_only_on_request(dag):
    assert {orbit.n for orbit in analyze_freed(dag).orbits} == {12}
    assert {orbit.n for orbit in analyze_freed(dag, free="head").orbits} == {12, 10}
    assert {orbit.n for orbit in analyze_freed(dag, free=("side",)).orbits} == {12, 5}
    assert {orbit.n for orbit in analyze_freed(dag, free=("re:head|side",)).orbits} == {12, 10, 5}


def test_the_plan_reports_which_output_channels_are_left(dag):
    analysis = analyze_freed(dag, free="side")
    plan = Plan.keeping(analysis, {"side.weight:0": [0, 3, 4]})
    assert kept_outputs(analysis, plan) == {"side": {1: [0, 3, 4]}}
    assert kept_outputs(analysis, Plan.whole(analysis)) == {}
    pruned, x = remove_channels(dag, plan, analysis=analysis), torch.randn(3, 6)
    torch.testing.assert_close(pruned(x)[1], dag(x)[1][:, [0, 3, 4]])


def test_layers_that_make_no_output_are_refused(dag):
    with pytest.raises(PlanError, match="free: 'a' makes no channels of an output; the graph returns"):
        analyze_freed(dag, free="a")
    with pytest.raises(PlanError, match="free: nothing in the graph matches 'haed'; did you mean 'head'"):
        analyze_freed(dag, free="haed")


def test_the_algorithm_says_which_classes_are_left(dag):
    algorithm = OneShotChannelPruning(dag, None, 0.5, free=("head",), criterion="random")
    pruned = algorithm.finalize()
    (kept,) = next(iter(kept_outputs(algorithm.analysis, algorithm.plan).values())).values()
    assert 1 <= len(kept) < 10
    assert f"keeps {len(kept)} positions ({kept[0]}" in algorithm.conclusion()
    assert pruned(torch.randn(2, 6))[0].shape == (2, len(kept))


def test_what_is_left_of_outputs_is_repaired(dag):
    algorithm = OneShotChannelPruning(dag, None, 0.5, free=("side",))
    algorithm.calibrate([torch.randn(64, 6)])
    pruned, x = algorithm.finalize(), torch.randn(50, 6)
    kept = kept_outputs(algorithm.analysis, algorithm.plan)
    slots = next(iter(kept["side"].values())) if kept else list(range(5))
    assert pruned(x)[1].shape == (50, len(slots))
