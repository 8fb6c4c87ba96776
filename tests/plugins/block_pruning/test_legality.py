"""What may be cut and what may not."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from torch_dag_block_pruning import BlockPruningConfig, analyze_blocks
from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.ops.arithmetic import Add, Mul

SHAPE = (3, 8, 8)


def names(dag, shape=SHAPE, **settings):
    config = BlockPruningConfig(keep_flops=1.0, training_steps=1, **settings)
    return [each.name for each in analyze_blocks(dag, shape, config).candidates]


def graph(forward, **layers):
    """Convert a model with these layers."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            for name, layer in layers.items():
                self.add_module(name, layer)

        def forward(self, x):
            return forward(self, x)

    return build_from_unstructured_module(Net().eval(), torch.randn(2, *SHAPE))


def conv(n=3, out=3, **options):
    return nn.Conv2d(n, out, 3, padding=1, **options)


def joins(dag):
    return [vertex.name for vertex in dag.inner_vertices if type(vertex.module) in (Add, Mul)]


def test_only_the_branch_of_an_identity_block_may_go(convert):
    dag = convert("Identity")
    first, second = joins(dag)
    assert names(dag) == [f"{first}[1]", f"{second}[0]"]


def test_either_side_of_a_projection_may_go(convert):
    dag = convert("Projection")
    block, second = joins(dag)
    assert names(dag) == [f"{block}[0]", f"{block}[1]", f"{second}[1]"]
    assert names(dag, shortcut="identity") == [f"{second}[1]"]


def test_a_branch_that_training_computes_otherwise_may_go():
    dag = graph(lambda net, x: x + (net.slow(x) if net.training else net.quick(x)), slow=conv(), quick=conv())
    assert names(dag) == ["add[1]"]


def test_an_operand_that_is_broadcast_cannot_stay():
    dag = graph(lambda net, x: net.a(x) + net.b(x).mean((2, 3), keepdim=True), a=conv(), b=conv())
    assert names(dag) == [f"{joins(dag)[0]}[1]"]


def test_an_operand_without_the_batch_cannot_stay():
    """At a batch of 1 the first sample has the shape of the sum."""
    dag = graph(lambda net, x: net.a(x) + net.b(x[:1]), a=conv(), b=conv())
    assert names(dag) == [f"{joins(dag)[0]}[1]"]


def test_what_depends_on_no_input_is_no_candidate():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = conv(), conv()
            self.table = nn.Parameter(torch.randn(1, 3, 8, 8))

        def forward(self, x):
            return self.a(x) + self.b(self.table)

    dag = build_from_unstructured_module(Net().eval(), torch.randn(2, *SHAPE))
    assert names(dag) == []


def test_an_operand_of_another_type_cannot_stay():
    dag = graph(lambda net, x: net.a(x).half() + net.b(x), a=conv(), b=conv())
    assert names(dag) == [f"{joins(dag)[0]}[0]"]


def test_a_sum_with_a_number_has_nothing_to_cut():
    dag = graph(lambda net, x: net.a(x) + 1, a=conv())
    assert names(dag) == []


def test_a_value_added_to_itself_has_nothing_to_cut():
    def forward(net, x):
        y = net.a(x)
        return y + y

    assert names(graph(forward, a=conv())) == []


def test_gates_are_offered_only_when_asked_for(convert):
    dag = convert("Gated")
    gate, scale, block = joins(dag)
    assert names(dag) == [f"{block}[1]"]
    assert names(dag, units=("gate",)) == [f"{gate}[1]"]
    assert names(dag, units=("residual", "gate")) == [f"{gate}[1]", f"{block}[1]"]
    assert scale not in str(names(dag, units=("gate",)))


def test_blocks_with_protected_modules_stay():
    def forward(net, x):
        x = x + net.a(x)
        return x + net.act(net.b(x))

    dag = graph(forward, a=conv(), b=conv(), act=nn.Tanh())
    first, second = joins(dag)
    assert names(dag) == [f"{first}[1]", f"{second}[1]"]
    assert names(dag, ignore_classes=(nn.Tanh,)) == [f"{first}[1]"]


def test_a_protected_module_that_two_branches_share_stays():
    def forward(net, x):
        x = net.stem(x)
        common = net.act(net.common(x))
        y = x + net.a(common)
        return y + net.b(common)

    dag = graph(forward, stem=conv(), common=conv(), act=nn.Tanh(), a=conv(), b=conv())
    assert len(names(dag)) == 3
    assert names(dag, ignore_classes=(nn.Tanh,)) == []


def test_an_input_or_output_of_the_graph_may_be_part_of_a_join():
    dag = DagModule()
    x = dag.add_input("x")
    branch = dag.add_vertex("branch", nn.Linear(4, 4), [x])
    dag.set_output(dag.add_vertex("sum", Add(), [x, branch]))
    assert names(dag, (4,)) == ["sum[1]"]


def test_nested_graphs_are_looked_into():
    dag = DagModule()
    x = dag.add_input("x")
    inner = DagModule()
    y = inner.add_input("y")
    inner.set_output(inner.add_vertex("sum", Add(), [y, inner.add_vertex("branch", nn.Linear(4, 4), [y])]))
    dag.set_output(dag.add_vertex("block", inner, [x]))
    assert names(dag, (4,)) == ["block.sum[1]"]
    assert [vertex.name for vertex in dag.inner_vertices] == ["block"]


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_max_removed_limits_how_deep_cuts_go(convert, limit):
    dag = convert("Projection")
    config = BlockPruningConfig(keep_flops=1.0, training_steps=1, max_removed=limit)
    report = analyze_blocks(dag, SHAPE, config)
    assert len(report.deepest) == min(limit, 2)
    assert report.remaining_flops(report.deepest) == report.reachable_flops


def test_the_work_grows_almost_linearly():
    """Counted in Python calls, which no other load on the machine changes."""

    def work(count):
        dag = DagModule()
        value = dag.add_input("x")
        for index in range(count):
            branch = dag.add_vertex(f"a{index}", nn.Linear(2, 2), [value])
            value = dag.add_vertex(f"sum{index}", Add(), [branch, value])
        far = dag.add_vertex("far", Add(), [value, dag.input_vertices[0]])
        dag.set_output(far)
        calls = 0

        def on_event(frame, event, arg):
            nonlocal calls
            calls += event == "call" and "torch_dag" in frame.f_code.co_filename

        before = sys.getprofile()
        sys.setprofile(on_event)
        try:
            found = names(dag, (2,))
        finally:
            sys.setprofile(before)
        assert len(found) >= count
        return calls

    assert work(160) < 5.5 * work(40)
