"""One object per cut: what it holds is made once, and it belongs to the graph that was analysed, as it was."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.values import Size
from torch_dag_core.testing import awaken
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.cut import Cut, carry_optimizer, masked_model, remove_channels
from torch_dag_pruning.errors import AnalysisError, PlanError, RemovalError, RemovalMismatchError
from torch_dag_pruning.one_shot import OneShotChannelPruning
from torch_dag_pruning.plan.plan import Plan
from torch_dag_pruning.removal.kept import Kept
from torch_dag_pruning.removal.rebuilding import rescaled


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(5, 8), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        return self.b(self.norm(self.a(x)).relu())


def converted():
    torch.manual_seed(0)
    return build_from_unstructured_module(awaken(Net()).eval(), torch.randn(2, 5))


@pytest.fixture
def dag():
    return converted()


@pytest.fixture
def kept_made(monkeypatch):
    made = []
    init = Kept.__init__

    def recorded(self, *args):
        made.append(self)
        init(self, *args)

    monkeypatch.setattr(Kept, "__init__", recorded)
    return made


def test_the_three_answers_belong_together(dag):
    x = torch.randn(4, 5)
    cut = Cut(analyze(dag), Plan.random(analyze(dag), 0.5))
    masked, removed = cut.masked(), cut.removed()
    torch.testing.assert_close(masked(x), removed(x))
    proof = cut.prove(removed)
    assert proof.worst < 1e-5
    assert proof.effect > 0.01
    assert cut.removed() is not removed


def test_what_stays_is_worked_out_once_for_each_removal(dag, kept_made):
    remove_channels(dag, Plan.random(analyze(dag), 0.5))
    assert len(kept_made) == 1


def test_what_stays_is_worked_out_once_for_each_algorithm(dag, kept_made):
    algorithm = OneShotChannelPruning(dag, None, 0.5)
    algorithm.prepare()
    algorithm.losses(0)
    algorithm.finalize()
    assert len(kept_made) == 1


def calls(dag, plan, analysis):
    optimizer = torch.optim.SGD(dag.parameters(), 0.1)
    return {
        "masked_model": lambda: masked_model(dag, plan, analysis=analysis),
        "remove_channels": lambda: remove_channels(dag, plan, analysis=analysis),
        "without proof": lambda: remove_channels(dag, plan, verify=False, analysis=analysis),
        "carry_optimizer": lambda: carry_optimizer(optimizer, dag, dag, plan, analysis=analysis),
    }


CALLS = ("masked_model", "remove_channels", "without proof", "carry_optimizer")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("other", [DagModule.clone, lambda dag: converted()], ids=["clone", "same model"])
def test_an_analysis_of_another_graph_is_refused(dag, call, other):
    analysis = analyze(dag)
    with pytest.raises(AnalysisError, match="the analysis is of another graph; pass the graph that was analysed, or"):
        calls(other(dag), Plan.random(analysis, 0.5), analysis)[call]()


@pytest.mark.parametrize("call", CALLS)
def test_an_analysis_of_a_graph_that_was_edited_since_is_refused(dag, call):
    analysis = analyze(dag)
    assert analysis.dag.inner_vertices  # what the analysis holds of the graph is of no use any more
    plan = Plan.random(analysis, 0.5)
    dag.insert_after(dag.get_vertex_by_name("a"), nn.ReLU())
    with pytest.raises(AnalysisError, match="the graph was edited after it was analysed; analyze it again"):
        calls(dag, plan, analysis)[call]()
    with pytest.raises(AnalysisError, match="edited after it was analysed"):
        Cut(analysis, plan)


def test_an_edit_of_a_nested_graph_is_noticed():
    inner = DagModule()
    inner.set_output(inner.add_vertex("a", nn.Linear(5, 8), [inner.add_input("x")]))
    dag = DagModule()
    nested = dag.add_vertex("nested", inner, [dag.add_input("x")])
    dag.set_output(dag.add_vertex("b", nn.Linear(8, 3), [nested]))
    analysis = analyze(dag, torch.randn(2, 5))
    plan = Plan.random(analysis, 0.5)
    remove_channels(dag, plan, analysis=analysis)
    inner.insert_after(inner.get_vertex_by_name("a"), nn.ReLU())
    with pytest.raises(AnalysisError, match="edited after it was analysed"):
        remove_channels(dag, plan, analysis=analysis)


def test_new_weights_and_modes_are_no_edit(dag):
    analysis = analyze(dag)
    plan = Plan.random(analysis, 0.5)
    dag.train()
    with torch.no_grad():
        dict(dag.named_parameters())["a.weight"].mul_(2)
    key = analysis.orbits[0].key
    smaller = remove_channels(dag, plan, analysis=analysis)
    assert torch.equal(smaller.state_dict()["a.weight"], dag.state_dict()["a.weight"][list(plan.kept[key])])


def test_a_plan_that_does_not_fit_is_refused(dag):
    with pytest.raises(PlanError, match="no orbit 'nonesuch'"):
        Cut(analyze(dag), Plan({"nonesuch": (0,)}, {"nonesuch": 2}))


def test_a_size_that_cannot_shrink_names_its_vertex():
    from fractions import Fraction

    with pytest.raises(RemovalError, match="vertex 'reshape' cannot shrink the size") as caught:
        rescaled("reshape", Size(((0, 1),), add=1), Fraction(1, 2))
    assert caught.value.vertex == "reshape"


def test_costs_that_differ_are_those_of_no_single_vertex(dag, monkeypatch):
    cut = Cut(analyze(dag), Plan.random(analyze(dag), 0.5))
    removed = cut.removed()
    monkeypatch.setattr(cut.analysis, "cost", lambda counts=None: 7)
    with pytest.raises(RemovalMismatchError, match="FLOPs, the analysis predicts 7; please report it") as caught:
        cut.prove(removed)
    assert caught.value.vertex is None
