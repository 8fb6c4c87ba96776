import pytest
import torch
from torch import nn

from torch_dag_core.errors import GraphError, RewriteLimitError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.ops.arithmetic import Add, Mul, Neg
from torch_dag_core.patterns.rewriting import Pattern, Rule, anything, chain, find, rewrite


def drop_both(match, dag):
    first, second = match.vertices
    dag.remove_vertex(second)
    dag.remove_vertex(first)
    return True


DOUBLE_NEGATION = Rule(chain(Neg, Neg), drop_both)


def names_of(dag):
    return [vertex.name for vertex in dag.inner_vertices]


def test_rules_run_until_none_fires(chain_of, batch):
    dag = chain_of(7, Neg)
    result = rewrite(dag, DOUBLE_NEGATION)
    assert (result.changed, result.steps, bool(result)) == (True, 3, True)
    assert len(dag.inner_vertices) == 1
    assert torch.equal(dag(batch), -batch)
    dag.verify()
    again = rewrite(dag, (DOUBLE_NEGATION,))
    assert (again.changed, again.steps, bool(again)) == (False, 0, False)


def test_no_rules_change_nothing(chain_of):
    assert not rewrite(chain_of(3), ())


def test_replacing_every_activation(chain_of):
    dag = chain_of(4)

    def to_gelu(match, dag):
        dag.replace_module(match.root, nn.GELU())
        return True

    assert rewrite(dag, Rule(Pattern(nn.Tanh), to_gelu)).steps == 4
    assert {type(vertex.module) for vertex in dag.inner_vertices} == {nn.GELU}


def test_a_batch_norm_after_each_convolution_that_has_none():
    dag = DagModule()
    conv1 = dag.add_vertex("conv1", nn.Conv2d(3, 3, 1), [dag.add_input("x")])
    bn = dag.add_vertex("bn", nn.BatchNorm2d(3), [conv1])
    dag.set_output(dag.add_vertex("conv2", nn.Conv2d(3, 5, 1), [bn]))

    def has_no_norm(vertex):
        return not any(isinstance(user.module, nn.BatchNorm2d) for user in vertex.successors)

    def add_norm(match, dag):
        dag.insert_after(match.root, nn.BatchNorm2d(match.root.module.out_channels))
        return True

    assert rewrite(dag, Rule(Pattern(nn.Conv2d, where=has_no_norm), add_norm)).steps == 1
    assert names_of(dag) == ["conv1", "bn", "conv2", "conv2_batchnorm2d"]


def test_the_first_rule_that_changes_something_wins(chain_of):
    calls = []

    def rule(name, *, fires):
        def act(match, dag):
            calls.append((name, match.root.name))
            if fires:
                dag.replace_module(match.root, nn.Identity())
            return fires

        return Rule(Pattern(nn.Tanh), act, name=name)

    rewrite(chain_of(2), (rule("passes", fires=False), rule("fires", fires=True), rule("never", fires=True)))
    assert calls == [("passes", "v0"), ("fires", "v0"), ("passes", "v1"), ("fires", "v1")]


def test_a_rule_that_changes_the_graph_and_denies_it_is_counted(chain_of):
    def act(match, dag):
        dag.replace_module(match.root, nn.Identity())
        return False

    assert rewrite(chain_of(2), Rule(Pattern(nn.Tanh), act)).steps == 2


def test_rules_cascade_upwards_and_downwards(batch):
    """-(-x) appears below only after the multiplication between the two has gone, and above after a use has gone."""
    dag = DagModule()
    x = dag.add_input("x")
    first = dag.add_vertex("first", Neg(), [x])
    times_one = dag.add_vertex("times_one", Mul(scalar=1.0), [first])
    second = dag.add_vertex("second", Neg(), [times_one])
    sink = dag.add_vertex("sink", nn.Tanh(), [first])
    dag.add_vertex("unused", Add(), [sink, sink])
    dag.set_output(second)

    def drop(match, dag):
        dag.remove_vertex(match.root)
        return True

    one = Rule(Pattern(Mul, anything(), where=lambda vertex: vertex.module.scalar == 1.0), drop)
    unused = Rule(Pattern(None, where=lambda vertex: not vertex.uses), drop, name="unused")
    result = rewrite(dag, (DOUBLE_NEGATION, one, unused))
    assert names_of(dag) == []
    assert result.steps == 4
    assert torch.equal(dag(batch), batch)


def test_conditions_far_from_the_match_reach_a_fixed_point(chain_of):
    """The condition looks at the first vertex of the graph, which no operand of the pattern leads to."""
    dag = chain_of(6)

    def is_due(vertex):
        position = int(vertex.name.removeprefix("v"))
        return position == 5 or isinstance(dag.get_vertex_by_name(f"v{position + 1}").module, nn.Identity)

    def act(match, dag):
        dag.replace_module(match.root, nn.Identity())
        return True

    assert rewrite(dag, Rule(Pattern(nn.Tanh, where=is_due), act)).steps == 6


def test_rules_that_undo_each_other_are_named(chain_of):
    def replace_by(cls):
        def act(match, dag):
            dag.replace_module(match.root, cls())
            return True

        return act

    dag = chain_of(3)
    dag.insert_after(dag.outputs[0], Neg())
    rules = (
        Rule(Pattern(Neg), replace_by(nn.Identity), name="settles"),
        Rule(Pattern(nn.Tanh), replace_by(nn.ReLU), name="ping"),
        Rule(Pattern(nn.ReLU), replace_by(nn.Tanh), name="pong"),
    )
    with pytest.raises(RewriteLimitError, match="no fixed point after 500 steps; still firing: ping, pong;") as caught:
        rewrite(dag, rules, max_steps=500)
    assert caught.value.rules == ("ping", "pong")
    dag.verify()


def test_exactly_max_steps_are_allowed(chain_of):
    assert rewrite(chain_of(6, Neg), DOUBLE_NEGATION, max_steps=3).steps == 3
    with pytest.raises(RewriteLimitError, match="drop_both"):
        rewrite(chain_of(6, Neg), DOUBLE_NEGATION, max_steps=2)


def test_an_error_in_a_rule_passes_through(chain_of):
    dag = chain_of(3)

    def act(match, dag):
        dag.remove_vertex(match.root)
        dag.remove_vertex(match.root)
        return True

    with pytest.raises(GraphError, match="not a vertex of this graph"):
        rewrite(dag, Rule(Pattern(nn.Tanh), act))
    dag.verify()
    with dag.recording() as edited:
        pass
    assert edited == {}


def test_a_rule_may_rewrite_and_copy_the_graph(chain_of):
    dag = chain_of(9, Neg)
    dag.insert_after(dag.outputs[0], nn.Tanh())
    copies = []

    def settle(match, dag):
        copies.append(dag.clone())
        return bool(rewrite(dag, DOUBLE_NEGATION))

    assert rewrite(dag, Rule(Pattern(nn.Tanh), settle)).steps == 1
    assert len(dag.inner_vertices) == 2
    assert len(copies[0].inner_vertices) == 10
    assert find(copies[0], chain(Neg, Neg))


def test_edits_are_recorded_with_their_kind(diamond):
    total, left, tail = (diamond.get_vertex_by_name(name) for name in ("block.sum", "block.left", "tail"))
    with diamond.recording() as edited:
        diamond.set_predecessor(total, 0, diamond.input_vertices[0])
        diamond.replace_module(tail, nn.Tanh())
    assert edited == {left: False, diamond.input_vertices[0]: False, total: True, tail: True}


@pytest.mark.parametrize("shape", ["chain", "star"])
def test_the_work_grows_linearly(shape, chain_of, calls_of):
    """2,500 rewrites of 5,000 vertices; in the star all pairs hang on one vertex and join in one sum tree."""

    def build(pairs):
        if shape == "chain":
            return chain_of(2 * pairs, Neg)
        dag = DagModule()
        hub = dag.add_vertex("hub", nn.Tanh(), [dag.add_input("x")])
        ends = []
        for index in range(pairs):
            first = dag.add_vertex(f"first{index}", Neg(), [hub])
            ends.append(dag.add_vertex(f"second{index}", Neg(), [first]))
        while len(ends) > 1:
            sums = [dag.add_vertex(f"sum{len(dag)}_{i}", Add(), ends[i : i + 2]) for i in range(0, len(ends) - 1, 2)]
            ends = [*sums, *ends[2 * len(sums) :]]
        dag.set_output(ends[0])
        return dag

    def work(pairs):
        dag = build(pairs)
        results = []
        calls = calls_of(lambda: results.append(rewrite(dag, DOUBLE_NEGATION)))
        assert results[0].steps == pairs
        assert not find(dag, DOUBLE_NEGATION.pattern)
        return calls

    assert work(2500) < 4.4 * work(625)
