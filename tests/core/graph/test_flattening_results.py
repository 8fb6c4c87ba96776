"""Nested graphs whose results are structures, or differ in training: switches and containers stand for them."""

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


def nested_with_training_output(structure, *, wide):
    """Return x and -x in evaluation, tanh and -x in training."""
    nested = DagModule()
    x = nested.add_input("x")
    minus, tanh = nested.add_vertex("minus", Neg(), [x]), nested.add_vertex("tanh", nn.Tanh(), [x])
    nested.set_outputs(structure, [x, minus] if wide else [x])
    nested.set_outputs(structure, [tanh, minus] if wide else [tanh], training_only=True)
    return nested


@pytest.mark.parametrize(("structure", "wide"), [(Slot(0), False), ((Slot(0), Slot(1)), True)])
def test_another_training_result_becomes_a_switch(structure, wide, outer_of, batch):
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


def test_a_frozen_part_keeps_its_own_mode(outer_of, batch):
    dag, _ = outer_of(nested_with_training_output(Slot(0), wide=False))
    dag.get_submodule("nested").eval()
    flat = dag.flatten()
    assert [vertex.name for vertex in flat.inner_vertices] == ["nested"]
    assert torch.equal(flat(batch), batch)


def returning_a_dict(outer_of):
    nested = DagModule()
    nested.set_outputs({"value": Slot(0)}, [nested.add_input("x")])
    return outer_of(nested)[0]


def read_whole(outer_of):
    nested = DagModule()
    x = nested.add_input("x")
    nested.set_outputs((Slot(0), Slot(1)), [x, nested.add_vertex("minus", Neg(), [x])])
    dag, vertex = outer_of(nested)
    dag.set_output(dag.add_vertex("all", AddAll(), [vertex]))
    return dag


def returned_whole(outer_of):
    dag = read_whole(outer_of)
    dag.set_output(dag.get_vertex_by_name("nested"))
    return dag


def taking_a_pair(_):
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
def test_what_vertices_cannot_stand_for_stays_nested(build, kept, outer_of, batch):
    dag = build(outer_of)
    flat = dag.flatten()
    assert [v.name for v in flat.inner_vertices if isinstance(v.module, DagModule)] == kept
    arguments = ((batch, batch),) if build is taking_a_pair else (batch,)
    assert repr(flat(*arguments)) == repr(dag(*arguments))
    assert str(flat.flatten()) == str(flat)
    flat.verify()


def test_only_the_container_stays_nested(outer_of):
    assert str(read_whole(outer_of).flatten()).splitlines()[1:-1] == [
        "  x0",
        "  nested.minus = Neg()(x0)",
        "  nested.output = DagModule(0 vertices)(x0, nested.minus)",
        "  all = AddAll()(nested.output)",
        "  output: all",
    ]


def test_containers_pass_through_nested_graphs(diamond, batch):
    """The inner graph is wrapped without the vertices that pick from its result, and these by another graph."""
    before = diamond(batch)
    left, right, total = map(diamond.get_vertex_by_name, ("block.left", "block.right", "block.sum"))
    inner = diamond.wrap_subgraph([left, right], name="inner")
    picks = inner.successors
    diamond.wrap_subgraph([inner], name="outer")
    diamond.wrap_subgraph([*picks, total], name="rest")
    flat = diamond.flatten()
    assert [vertex.name for vertex in flat.inner_vertices] == [
        "stem.a",
        "outer.inner.block.left",
        "outer.inner.block.right",
        "rest.block.sum",
        "tail",
    ]
    assert torch.equal(flat(batch), before)


def test_a_switch_between_containers(outer_of, batch):
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
