from typing import ClassVar

import pytest
import torch
from torch import nn

from torch_dag_core.errors import GraphError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.op import Op
from torch_dag_core.ops.arithmetic import Add
from torch_dag_core.ops.stochastic import TrainingSwitch


class Counting(Op):
    has_side_effect: ClassVar[bool] = True

    def forward(self, x):
        self.calls = getattr(self, "calls", 0) + 1
        return x


def test_users_read_the_predecessor(diamond, batch):
    diamond.remove_vertex(diamond.get_vertex_by_name("block.right"))
    diamond.verify()
    module = diamond.get_submodule
    a = module("stem.a")(batch)
    assert torch.equal(diamond(batch), module("tail")(module("block.left")(a) + a))


def test_removing_what_the_model_returns_returns_its_predecessor(diamond):
    diamond.remove_vertex(diamond.get_vertex_by_name("tail"))
    assert [vertex.name for vertex in diamond.outputs] == ["block.sum"]
    assert "tail.weight" not in diamond.state_dict()


def test_an_unused_vertex_may_have_any_number_of_operands(diamond):
    stem, left = (diamond.get_vertex_by_name(name) for name in ("stem.a", "block.left"))
    unused = diamond.add_vertex("unused", Add(), [stem, left])
    diamond.remove_vertex(unused)
    assert "unused" not in diamond
    diamond.verify()


@pytest.mark.parametrize(
    ("name", "message"),
    [("block.sum", "has 2 operands"), ("x", "part of the call signature")],
)
def test_a_refused_removal_changes_nothing(diamond, name, message):
    text = str(diamond)
    with pytest.raises(GraphError, match=message):
        diamond.remove_vertex(diamond.get_vertex_by_name(name))
    assert str(diamond) == text
    diamond.verify()


def test_a_removed_vertex_is_refused_afterwards(diamond):
    right = diamond.get_vertex_by_name("block.right")
    diamond.remove_vertex(right)
    with pytest.raises(GraphError, match="not a vertex of this graph"):
        diamond.remove_vertex(right)


def test_dead_vertices_are_named_in_topological_order(diamond, batch):
    x = diamond.input_vertices[0]
    first = diamond.add_vertex("dead.first", nn.Tanh(), [x])
    diamond.add_vertex("dead.second", nn.Linear(4, 4), [first])
    before = diamond(batch)
    assert diamond.remove_dead_vertices() == ("dead.first", "dead.second")
    assert torch.equal(diamond(batch), before)
    assert not hasattr(diamond, "dead")
    assert diamond.remove_dead_vertices() == ()
    diamond.verify()


def test_side_effects_and_what_they_read_stay(diamond, batch):
    x = diamond.input_vertices[0]
    feeding = diamond.add_vertex("feeding", nn.Tanh(), [x])
    counting = diamond.add_vertex("counting", Counting(), [feeding])
    assert diamond.remove_dead_vertices() == ()
    diamond(batch)
    assert counting.module.calls == 1


def test_a_nested_graph_with_a_side_effect_stays(diamond, batch):
    counting = diamond.add_vertex("part.counting", Counting(), [diamond.input_vertices[0]])
    wrapped = diamond.wrap_subgraph([counting], name="part")
    assert wrapped.has_side_effect
    assert diamond.remove_dead_vertices() == ()
    diamond(batch)
    assert wrapped.module.get_submodule("counting").calls == 1


def test_what_only_training_returns_stays():
    dag = DagModule()
    x = dag.add_input("x")
    main = dag.add_vertex("main", nn.Tanh(), [x])
    auxiliary = dag.add_vertex("auxiliary", nn.ReLU(), [x])
    noisy = dag.add_vertex("noisy", nn.Dropout(), [main])
    switch = dag.add_vertex("switch", TrainingSwitch(), [main, noisy])
    dag.set_output(switch)
    dag.set_outputs((switch_slot := dag.output_structure,), [switch], training_only=True)
    dag.set_outputs((switch_slot, type(switch_slot)(1)), [switch, auxiliary], training_only=True)
    assert dag.remove_dead_vertices() == ()
    dag.verify()
