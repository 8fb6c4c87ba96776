import itertools
from typing import ClassVar

import pytest
import torch
from torch import nn

from torch_dag_core.errors import GraphError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.op import Op
from torch_dag_core.ops.arithmetic import Add
from torch_dag_core.ops.layout import GetItem
from torch_dag_core.ops.stochastic import TrainingSwitch


class Remembering(Op):
    has_side_effect: ClassVar[bool] = True

    def forward(self, x):
        return x


def get(dag, *names):
    return [dag.get_vertex_by_name(name) for name in names]


def inner_names(dag):
    return [vertex.name for vertex in dag.inner_vertices]


def test_wrapping_siblings_under_their_folder_keeps_every_key(diamond, batch):
    before, keys = diamond(batch), set(diamond.state_dict())
    wrapped = diamond.wrap_subgraph(get(diamond, "block.left", "block.right", "block.sum"), name="block")
    assert inner_names(diamond) == ["stem.a", "block", "tail"]
    assert inner_names(wrapped.module) == ["left", "right", "sum"]
    assert torch.equal(diamond(batch), before)
    assert set(diamond.state_dict()) == keys
    diamond.verify()
    wrapped.module.verify()


def test_names_keep_what_they_do_not_share(diamond):
    wrapped = diamond.wrap_subgraph(get(diamond, "stem.a", "block.left"), name="front")
    assert inner_names(wrapped.module) == ["stem.a", "block.left"]


def test_the_shared_prefix_may_be_shorter_than_the_name(diamond):
    wrapped = diamond.wrap_subgraph(get(diamond, "block.left", "block.right"), name="block.branches")
    assert inner_names(wrapped.module) == ["left", "right"]
    assert "block.branches.left.weight" in diamond.state_dict()


def test_several_results_are_picked_in_topological_order(diamond, batch):
    before = diamond(batch)
    wrapped = diamond.wrap_subgraph(get(diamond, "block.right", "stem.a", "block.left"), name="front")
    picks = wrapped.successors
    assert [(vertex.name, vertex.module.index) for vertex in picks] == [("front_0", 0), ("front_1", 1)]
    assert [vertex.name for vertex in wrapped.module.outputs] == ["block.left", "block.right"]
    assert all(type(vertex.module) is GetItem for vertex in picks)
    assert torch.equal(diamond(batch), before)


def test_inputs_come_in_order_of_first_use_each_once():
    dag = DagModule()
    x, y = dag.add_input("x"), dag.add_input("y")
    first = dag.add_vertex("first", Add(), [y, x])
    second = dag.add_vertex("second", Add(), [first, y])
    dag.set_output(second)
    wrapped = dag.wrap_subgraph([first, second], name="both")
    assert wrapped.predecessors == (y, x)
    assert torch.equal(dag(torch.ones(2), torch.full((2,), 5.0)), torch.full((2,), 11.0))


def test_a_single_value_used_many_times_is_returned_bare(diamond):
    wrapped = diamond.wrap_subgraph(get(diamond, "stem.a"), name="stem")
    assert [vertex.name for vertex in wrapped.successors] == ["block.left", "block.right"]
    assert wrapped.module(torch.zeros(1, 4)).shape == (1, 4)


def test_a_path_that_leaves_and_comes_back_is_refused(diamond):
    text = str(diamond)
    with pytest.raises(GraphError, match=r"'block\.left'\) lies on a path .* comes back at .*'block\.sum'"):
        diamond.wrap_subgraph(get(diamond, "stem.a", "block.right", "block.sum"), name="hole")
    assert str(diamond) == text
    diamond.verify()


@pytest.mark.parametrize(
    ("chosen", "name", "message"),
    [
        ((), "nothing", "there are no vertices to wrap under 'nothing'"),
        (("x",), "input", "part of the call signature"),
        (("tail",), "block", "'block' is taken"),
        (("block.left",), "block", "'block' is taken"),
        (("tail",), "stem.a.inside", "lies inside one"),
        (("tail",), "train", "'train' is taken"),
        (("tail",), "", "is not a vertex name"),
    ],
)
def test_a_refused_wrap_changes_nothing(diamond, chosen, name, message):
    text, keys = str(diamond), list(diamond.state_dict())
    with pytest.raises(GraphError, match=message):
        diamond.wrap_subgraph(get(diamond, *chosen), name=name)
    assert (str(diamond), list(diamond.state_dict())) == (text, keys)
    diamond.verify()


def test_the_name_of_a_wrapped_vertex_is_free_for_the_wrap(diamond, batch):
    before = diamond(batch)
    wrapped = diamond.wrap_subgraph(get(diamond, "tail"), name="tail")
    assert inner_names(wrapped.module) == ["tail"]
    assert torch.equal(diamond(batch), before)
    diamond.verify()


def test_vertices_of_one_state_stay_together():
    dag = DagModule()
    x = dag.add_input("x")
    state = Remembering()
    read = dag.add_vertex("read", state, [x])
    write = dag.add_vertex("write", state, [read])
    dag.set_output(write)
    with pytest.raises(GraphError, match="wrap both or neither"):
        dag.wrap_subgraph([write], name="part")
    assert dag.wrap_subgraph([read, write], name="part").module.has_side_effect


def test_random_draws_keep_their_order():
    dag = DagModule()
    x = dag.add_input("x")
    tanh = dag.add_vertex("tanh", nn.Tanh(), [x])
    early = dag.add_vertex("early", nn.Dropout(), [tanh])
    late = dag.add_vertex("late", nn.Dropout(), [x])
    dag.set_output(dag.add_vertex("sum", Add(), [late, early]))
    torch.manual_seed(0)
    before = dag(torch.ones(64))
    dag.wrap_subgraph([tanh, early], name="front")
    torch.manual_seed(0)
    assert torch.equal(dag(torch.ones(64)), before)


def test_the_mode_goes_with_the_vertices(batch):
    dag = DagModule()
    x = dag.add_input("x")
    doubled = dag.add_vertex("doubled", Add(), [x, x])
    switch = dag.add_vertex("switch", TrainingSwitch(), [x, doubled])
    dag.set_output(switch)
    dag.eval()
    wrapped = dag.wrap_subgraph([doubled, switch], name="part")
    assert not wrapped.module.training
    assert torch.equal(dag(batch), batch)
    assert torch.equal(dag.train()(batch), 2 * batch)


def test_a_shared_module_keeps_the_key_it_is_registered_under():
    dag = DagModule()
    linear = nn.Linear(2, 2)
    x = dag.add_input("x")
    late = dag.add_vertex("part.late", linear, [x])
    early = dag.add_vertex("part.early", linear, [x])
    dag.set_predecessor(late, 0, early)
    dag.set_output(late)
    assert list(dag.state_dict()) == ["part.late.weight", "part.late.bias"]
    dag.wrap_subgraph([early, late], name="part")
    assert list(dag.state_dict()) == ["part.late.weight", "part.late.bias"]
    dag.verify()


def test_a_module_shared_with_the_outside_stays_shared(batch):
    dag = DagModule()
    linear = nn.Linear(4, 4)
    x = dag.add_input("x")
    first = dag.add_vertex("first", linear, [x])
    second = dag.add_vertex("second", linear, [first])
    dag.set_output(second)
    before = dag(batch)
    wrapped = dag.wrap_subgraph([first], name="part")
    assert wrapped.module.get_submodule("first") is second.module is dag.get_submodule("second")
    assert torch.equal(dag(batch), before)
    assert len(list(dag.parameters())) == 2


def test_wraps_nest(diamond, batch):
    before = diamond(batch)
    inner = diamond.wrap_subgraph(get(diamond, "block.left", "block.sum"), name="inner")
    outer = diamond.wrap_subgraph([inner, *get(diamond, "block.right")], name="outer")
    assert [vertex.name for vertex in diamond.traverse()] == [
        "x", "stem.a",
        "outer", "input_0", "block.right",
        "inner", "input_0", "input_1", "block.left", "block.sum",
        "tail",
    ]  # fmt: skip
    assert torch.equal(diamond(batch), before)
    assert outer.module.inner_vertices[1].module is inner.module


def test_exactly_the_convex_sets_wrap(diamond, batch):
    before = diamond(batch)
    names = inner_names(diamond)
    reach = {"stem.a": {"block.left", "block.right", "block.sum", "tail"}, "block.left": {"block.sum", "tail"},
             "block.right": {"block.sum", "tail"}, "block.sum": {"tail"}, "tail": set()}  # fmt: skip
    for size in range(1, 6):
        for chosen in itertools.combinations(names, size):
            outside = set(names) - set(chosen)
            holes = {v for v in outside for s in chosen for t in chosen if v in reach[s] and t in reach[v]}
            copy = diamond.clone()
            if holes:
                with pytest.raises(GraphError, match="lies on a path"):
                    copy.wrap_subgraph(get(copy, *chosen), name="wrapped")
            else:
                copy.wrap_subgraph(get(copy, *chosen), name="wrapped")
                assert len([v for v in copy.inner_vertices if type(v.module) is not GetItem]) == 6 - size
            copy.verify()
            assert torch.equal(copy(batch), before)
