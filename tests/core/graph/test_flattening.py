"""Nested graphs come out flat: the same vertices, names, parameters, modes and order of random draws."""

import copy
from typing import ClassVar

import torch
from torch import nn

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.inputs import InputSpec, Parameter
from torch_dag_core.graph.op import Op
from torch_dag_core.graph.values import Slot
from torch_dag_core.ops.arithmetic import Add, Neg
from torch_dag_core.ops.layout import GetItem


class Counting(Op):
    has_side_effect: ClassVar[bool] = True
    calls: ClassVar[int] = 0

    def forward(self, x):
        self.calls = self.calls + 1
        return x


def get(dag, *names):
    return [dag.get_vertex_by_name(name) for name in names]


def inner_names(dag):
    return [vertex.name for vertex in dag.inner_vertices]


def test_flatten_undoes_a_wrap(diamond, batch):
    text, keys = str(diamond), list(diamond.state_dict())
    before = diamond(batch)
    diamond.wrap_subgraph(get(diamond, "block.left", "block.right", "block.sum"), name="block")
    flat = diamond.flatten()
    assert str(flat) == text
    assert list(flat.state_dict()) == keys
    assert torch.equal(flat(batch), before)
    flat.verify()


def test_the_argument_stays_as_it_is_and_shares_nothing(diamond, batch):
    diamond.wrap_subgraph(get(diamond, "block.left", "block.sum"), name="deep")
    text, before = str(diamond), diamond(batch)
    flat = diamond.flatten()
    for parameter in flat.parameters():
        nn.init.zeros_(parameter)
    assert str(diamond) == text
    assert torch.equal(diamond(batch), before)
    diamond.verify()


def test_picks_vanish_and_nested_names_are_joined(diamond, batch):
    before = diamond(batch)
    inner = diamond.wrap_subgraph(get(diamond, "block.left", "block.right"), name="two")
    diamond.wrap_subgraph([inner, *inner.successors, *get(diamond, "block.sum")], name="deep")
    flat = diamond.flatten()
    assert inner_names(flat) == ["stem.a", "deep.two.block.left", "deep.two.block.right", "deep.block.sum", "tail"]
    assert torch.equal(flat(batch), before)


def test_a_flat_graph_comes_back_as_a_copy(diamond, batch):
    flat = diamond.flatten()
    assert str(flat) == str(diamond)
    assert flat.input_spec == diamond.input_spec
    assert torch.equal(flat(batch), diamond(batch))


def test_shared_modules_and_tied_parameters_stay_shared(batch):
    dag = DagModule()
    linear, tied = nn.Linear(4, 4), nn.Linear(4, 4)
    tied.weight = linear.weight
    vertex = dag.add_input("x")
    for index, module in enumerate([linear, linear, tied]):
        vertex = dag.add_vertex(f"v{index}", module, [vertex])
    dag.set_output(vertex)
    before = dag(batch)
    dag.wrap_subgraph(get(dag, "v1"), name="part")
    flat = dag.flatten()
    first, second, third = (vertex.module for vertex in flat.inner_vertices)
    assert first is second
    assert first.weight is third.weight
    assert first is not linear
    assert torch.equal(flat(batch), before)
    assert list(flat.state_dict()) == ["v0.weight", "v0.bias", "v2.weight", "v2.bias"]
    flat.verify()


def test_a_graph_called_twice_is_inlined_twice_over_the_same_modules(outer_of, batch):
    nested = DagModule()
    nested.set_output(nested.add_vertex("linear", nn.Linear(4, 4), [nested.add_input("x")]))
    dag, first = outer_of(nested)
    second = dag.add_vertex("again", nested, [first])
    dag.set_output(second)
    flat = dag.flatten()
    assert inner_names(flat) == ["nested.linear", "again.linear"]
    assert flat.inner_vertices[0].module is flat.inner_vertices[1].module
    assert torch.equal(flat(batch), dag(batch))


def test_a_result_that_is_an_input_needs_no_vertex(outer_of, batch):
    nested = DagModule()
    x, y = nested.add_input("x"), nested.add_input("y")
    nested.set_outputs((Slot(0), Slot(1)), [y, x])
    dag, vertex = outer_of(nested, inputs=2)
    dag.set_output(dag.add_vertex("pick", GetItem(-1), [vertex]))
    flat = dag.flatten()
    assert inner_names(flat) == []
    assert torch.equal(flat(batch, -batch), batch)


def test_operands_follow_the_parameters(outer_of, batch):
    nested = DagModule()
    x, y = nested.add_input("x"), nested.add_input("y")
    nested.set_output(nested.add_vertex("difference", Add(), [x, nested.add_vertex("minus", Neg(), [y])]))
    nested.input_spec = InputSpec(parameters=(Parameter("b", Slot(1)), Parameter("a", Slot(0))))
    dag, _ = outer_of(nested, inputs=2)
    one = torch.ones(2)
    assert torch.equal(dag(one, 3 * one), 2 * one)
    assert torch.equal(dag.flatten()(one, 3 * one), 2 * one)


def test_a_side_effect_without_a_result_is_kept(batch):
    dag = DagModule()
    x = dag.add_input("x")
    dag.add_vertex("counter", Counting(), [x])
    dag.set_output(x)
    dag.wrap_subgraph(get(dag, "counter"), name="part")
    flat = dag.flatten()
    assert inner_names(flat) == ["part.counter"]
    flat(batch)
    assert flat.get_submodule("part.counter").calls == 1


def test_random_draws_keep_their_order():
    dag = DagModule()
    vertex = dag.add_input("x")
    for index in range(4):
        vertex = dag.add_vertex(f"drop{index}", nn.Dropout(), [vertex])
    dag.set_output(vertex)
    dag.wrap_subgraph(get(dag, "drop1", "drop2"), name="middle")
    flat = dag.flatten()
    torch.manual_seed(0)
    before = dag(torch.ones(256))
    torch.manual_seed(0)
    assert torch.equal(flat(torch.ones(256)), before)


def test_deep_nesting_needs_no_recursion(outer_of):
    dag = DagModule()
    dag.set_output(dag.add_vertex("leaf", nn.Tanh(), [dag.add_input("x")]))
    for _ in range(1000):
        dag, _ = outer_of(dag)
    flat = dag.flatten()
    assert inner_names(flat) == ["nested." * 1000 + "leaf"]


def test_modes_of_modules_are_copied(diamond):
    diamond.eval()
    diamond.get_submodule("tail").train()
    flat = diamond.flatten()
    assert {n: m.training for n, m in flat.named_modules()} == {n: m.training for n, m in diamond.named_modules()}


def test_provenance_is_copied(diamond):
    diamond.provenance = {"source": ["resnet18"]}
    flat = diamond.flatten()
    assert flat.provenance == diamond.provenance
    flat.provenance["source"].append("edited")
    assert diamond.provenance == {"source": ["resnet18"]}
    assert copy.deepcopy(diamond).provenance == diamond.provenance
