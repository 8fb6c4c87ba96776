"""Rules that plugins add."""

import pytest
import torch
from torch import nn

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.plugins.loading import default_registry
from torch_dag_core.plugins.registry import OpSpec
from torch_dag_pruning import AnalysisError, Relation, analyze, axis_rule
from torch_dag_pruning.analysis.propagation import Propagation
from torch_dag_pruning.axes.relation import AxisStore, rules_by_key
from torch_dag_pruning.rules import core_rules


class Swap(nn.Module):
    """Exchange the two halves of the last dimension."""

    def forward(self, x):
        first, second = x.chunk(2, -1)
        return torch.cat([second, first], -1)


@axis_rule("tests.swap")
def swap(ctx):
    """Cut into halves and join them the other way round."""
    from torch_dag_pruning.axes import concat

    axes = list(ctx.inputs[0])
    first, second = ctx.solver.cut(axes[-1], [axes[-1].n // 2])
    return Relation([[*axes[:-1], concat(second, first)]])


@pytest.fixture
def dag():
    dag = DagModule()
    x = dag.add_vertex("a", nn.Linear(5, 8), [dag.add_input("x")])
    dag.set_output(dag.add_vertex("b", nn.Linear(8, 3), [dag.add_vertex("swap", Swap(), [x])]))
    return dag


@pytest.fixture
def registry():
    registry = default_registry().copy()
    registry.add(OpSpec(key="tests.swap", target=Swap), owner="tests")
    return registry


def test_an_unknown_module_fails_closed(dag):
    analysis = analyze(dag, torch.randn(2, 5))
    assert analysis.orbits == ()
    assert "swap (Swap): no axis rule describes this op" in str(analysis)


def run(dag, registry, rules):
    values = {dag.input_vertices[0]: torch.empty(2, 5, device="meta")}
    for vertex in dag.inner_vertices:
        values[vertex] = torch.empty(2, {"a": 8, "swap": 8, "b": 3}[vertex.name], device="meta")
    return Propagation(dag, registry, rules, AxisStore(), (), values).run()


def test_a_rule_of_a_plugin_is_asked(dag, registry):
    propagation = run(dag, registry, rules_by_key([*core_rules(), swap]))
    assert [atom.n for atom in propagation.store.solver.atoms()] == [4, 4]


def test_a_rule_is_held_to_the_sizes(dag, registry):
    wrong = axis_rule("tests.swap")(lambda ctx: Relation([ctx.inputs[0][:-1]]))
    with pytest.raises(
        AnalysisError, match=r"rule of 'tests.swap' gives 'swap' the sizes \[\(2,\)\], it has \[\(2, 8\)\]"
    ):
        run(dag, registry, rules_by_key([*core_rules(), wrong]))


def test_a_rule_that_fails_is_named(dag, registry):
    wrong = axis_rule("tests.swap")(lambda ctx: ctx.nothing)
    with pytest.raises(AnalysisError, match=r"axis rule of 'tests.swap' failed at vertex 'swap'"):
        run(dag, registry, rules_by_key([*core_rules(), wrong]))


def test_rules_of_the_core_are_not_replaced():
    mine = axis_rule("core.linear")(lambda ctx: Relation([]))
    with pytest.raises(AnalysisError, match=r"'core.linear' has two axis rules"):
        rules_by_key([*core_rules(), mine])


def test_a_rule_of_the_core_that_fails_freezes_its_vertex(dag, registry):
    """What a rule does not know is frozen with a reason, and the rest of the graph is analysed."""

    def unknown(ctx):
        message = "this form is not described"
        raise ValueError(message)

    rules = rules_by_key([*core_rules(), swap]) | {"core.linear": unknown}
    propagation = run(dag, registry, rules)
    (axes,) = propagation.outputs["a"]
    assert axes[1].cause.reason == "this form is not described"
    assert not propagation.store.solver.atoms()


def test_a_rule_of_the_core_with_wrong_sizes_freezes_its_vertex(dag, registry):
    rules = rules_by_key([*core_rules(), swap]) | {"core.linear": lambda ctx: Relation([ctx.inputs[0]])}
    (axes,) = run(dag, registry, rules).outputs["a"]
    assert "the sizes [(2, 5)], it has [(2, 8)]" in axes[1].cause.reason
