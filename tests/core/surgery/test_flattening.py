import copy
from typing import ClassVar

import pytest
import torch
from torch import nn

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.inputs import InputSpec, Parameter
from torch_dag_core.graph.op import Op
from torch_dag_core.graph.values import Slot
from torch_dag_core.ops.arithmetic import Add, Neg
from torch_dag_core.ops.layout import GetItem
from torch_dag_core.ops.stochastic import TrainingSwitch


class AddAll(Op):
    def forward(self, values):
        return sum(values)


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


def outer_of(nested, *, inputs=1):
    dag = DagModule()
    vertices = [dag.add_input(f"x{i}") for i in range(inputs)]
    vertex = dag.add_vertex("nested", nested, vertices)
    dag.set_output(vertex)
    return dag, vertex


def nested_with_training_output(structure, *, wide):
    """Return x and -x in evaluation, tanh and -x in training."""
    nested = DagModule()
    x = nested.add_input("x")
    minus, tanh = nested.add_vertex("minus", Neg(), [x]), nested.add_vertex("tanh", nn.Tanh(), [x])
    nested.set_outputs(structure, [x, minus] if wide else [x])
    nested.set_outputs(structure, [tanh, minus] if wide else [tanh], training_only=True)
    return nested


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


def test_a_graph_called_twice_is_inlined_twice_over_the_same_modules(batch):
    nested = DagModule()
    nested.set_output(nested.add_vertex("linear", nn.Linear(4, 4), [nested.add_input("x")]))
    dag, first = outer_of(nested)
    second = dag.add_vertex("again", nested, [first])
    dag.set_output(second)
    flat = dag.flatten()
    assert inner_names(flat) == ["nested.linear", "again.linear"]
    assert flat.inner_vertices[0].module is flat.inner_vertices[1].module
    assert torch.equal(flat(batch), dag(batch))


def test_a_result_that_is_an_input_needs_no_vertex(batch):
    nested = DagModule()
    x, y = nested.add_input("x"), nested.add_input("y")
    nested.set_outputs((Slot(0), Slot(1)), [y, x])
    dag, vertex = outer_of(nested, inputs=2)
    dag.set_output(dag.add_vertex("pick", GetItem(-1), [vertex]))
    flat = dag.flatten()
    assert inner_names(flat) == []
    assert torch.equal(flat(batch, -batch), batch)


def test_operands_follow_the_parameters(batch):
    nested = DagModule()
    x, y = nested.add_input("x"), nested.add_input("y")
    nested.set_output(nested.add_vertex("difference", Add(), [x, nested.add_vertex("minus", Neg(), [y])]))
    nested.input_spec = InputSpec(parameters=(Parameter("b", Slot(1)), Parameter("a", Slot(0))))
    dag, _ = outer_of(nested, inputs=2)
    one = torch.ones(2)
    assert torch.equal(dag(one, 3 * one), 2 * one)
    assert torch.equal(dag.flatten()(one, 3 * one), 2 * one)


@pytest.mark.parametrize(("structure", "wide"), [(Slot(0), False), ((Slot(0), Slot(1)), True)])
def test_another_training_result_becomes_a_switch(structure, wide, batch):
    dag, vertex = outer_of(nested_with_training_output(structure, wide=wide))
    if wide:
        picks = [dag.add_vertex(f"pick{i}", GetItem(i), [vertex]) for i in range(2)]
        dag.set_output(dag.add_vertex("sum", Add(), picks))
    flat = dag.flatten()
    switches = [v for v in flat.inner_vertices if isinstance(v.module, TrainingSwitch)]
    assert [v.name for v in switches] == ["nested.output"]
    assert not any(isinstance(v.module, DagModule) for v in flat.inner_vertices)
    for mode in (True, False):
        assert torch.equal(flat.train(mode)(batch), dag.train(mode)(batch))
    assert torch.equal(flat(batch), batch - batch if wide else batch)
    assert torch.equal(flat.train()(batch), torch.tanh(batch) - batch if wide else torch.tanh(batch))


def test_the_outer_training_result_is_kept(batch):
    dag = nested_with_training_output((Slot(0), Slot(1)), wide=True)
    minus = dag.get_vertex_by_name("minus")
    dag.wrap_subgraph([minus], name="part")
    flat = dag.flatten()
    for mode in (True, False):
        for got, wanted in zip(flat.train(mode)(batch), dag.train(mode)(batch), strict=True):
            assert torch.equal(got, wanted)


def test_a_frozen_part_keeps_its_own_mode(batch):
    dag, _ = outer_of(nested_with_training_output(Slot(0), wide=False))
    dag.get_submodule("nested").eval()
    flat = dag.flatten()
    assert inner_names(flat) == ["nested"]
    assert torch.equal(flat(batch), batch)


def returning_a_dict():
    nested = DagModule()
    nested.set_outputs({"value": Slot(0)}, [nested.add_input("x")])
    return outer_of(nested)[0]


def read_whole():
    nested = DagModule()
    x = nested.add_input("x")
    nested.set_outputs((Slot(0), Slot(1)), [x, nested.add_vertex("minus", Neg(), [x])])
    dag, vertex = outer_of(nested)
    dag.set_output(dag.add_vertex("all", AddAll(), [vertex]))
    return dag


def returned_whole():
    dag = read_whole()
    dag.set_output(dag.get_vertex_by_name("nested"))
    return dag


def taking_a_pair():
    nested = DagModule()
    nested.set_output(nested.add_vertex("sum", Add(), [nested.add_input("x"), nested.add_input("y")]))
    nested.input_spec = InputSpec(parameters=(Parameter("pair", (Slot(0), Slot(1))),))
    dag = DagModule()
    dag.input_spec = InputSpec(parameters=(Parameter("pair", (Slot(0), Slot(1))),))
    x, y = dag.add_input("x"), dag.add_input("y")
    pair = DagModule()
    pair.set_outputs((Slot(0), Slot(1)), [pair.add_input("x"), pair.add_input("y")])
    dag.set_output(dag.add_vertex("nested", nested, [dag.add_vertex("pair", pair, [x, y])]))
    return dag


@pytest.mark.parametrize(
    ("build", "kept"),
    [
        (returning_a_dict, ["nested"]),
        (read_whole, ["nested.output"]),
        (returned_whole, ["nested.output"]),
        (taking_a_pair, ["pair", "nested"]),
    ],
)
def test_what_vertices_cannot_stand_for_stays_nested(build, kept, batch):
    dag = build()
    flat = dag.flatten()
    assert [v.name for v in flat.inner_vertices if isinstance(v.module, DagModule)] == kept
    arguments = ((batch, batch),) if build is taking_a_pair else (batch,)
    assert repr(flat(*arguments)) == repr(dag(*arguments))
    assert str(flat.flatten()) == str(flat)
    flat.verify()


def test_only_the_container_stays_nested():
    assert str(read_whole().flatten()).splitlines()[1:-1] == [
        "  x0",
        "  nested.minus = Neg()(x0)",
        "  nested.output = DagModule(0 vertices)(x0, nested.minus)",
        "  all = AddAll()(nested.output)",
        "  output: all",
    ]


def test_containers_pass_through_nested_graphs(diamond, batch):
    """The inner graph is wrapped without the vertices that pick from its result, and these by another graph."""
    before = diamond(batch)
    inner = diamond.wrap_subgraph(get(diamond, "block.left", "block.right"), name="inner")
    picks = inner.successors
    diamond.wrap_subgraph([inner], name="outer")
    diamond.wrap_subgraph([*picks, *get(diamond, "block.sum")], name="rest")
    flat = diamond.flatten()
    assert inner_names(flat) == [
        "stem.a",
        "outer.inner.block.left",
        "outer.inner.block.right",
        "rest.block.sum",
        "tail",
    ]
    assert torch.equal(flat(batch), before)


def test_a_switch_between_containers(batch):
    nested = DagModule()
    x = nested.add_input("x")
    pair = DagModule()
    y = pair.add_input("y")
    pair.set_outputs((Slot(0), Slot(1)), [y, pair.add_vertex("minus", Neg(), [y])])
    tanh = nested.add_vertex("tanh", nn.Tanh(), [x])
    nested.set_output(nested.add_vertex("evaluation", pair, [x]))
    nested.set_outputs(Slot(0), [nested.add_vertex("learning", pair, [tanh])], training_only=True)
    dag, vertex = outer_of(nested)
    dag.set_output(dag.add_vertex("pick", GetItem(1), [vertex]))
    flat = dag.flatten()
    assert torch.equal(flat.eval()(batch), -batch)
    assert torch.equal(flat.train()(batch), -torch.tanh(batch))
    flat.verify()


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


def test_deep_nesting_needs_no_recursion():
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
