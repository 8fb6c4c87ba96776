import pytest
import torch
from torch import nn

from torch_dag_core.errors import GraphError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.ops.arithmetic import Neg, Sub


def names_of(vertices):
    return [vertex.name for vertex in vertices]


def test_insert_before_changes_only_that_operand(diamond, batch):
    total = diamond.get_vertex_by_name("block.sum")
    inserted = diamond.insert_before(total, nn.ReLU(), index=1)
    assert names_of(total.predecessors) == ["block.left", inserted.name]
    assert names_of(inserted.predecessors) == ["block.right"]
    assert inserted.name == "block.right_relu"
    diamond.verify()
    module = diamond.get_submodule
    a = module("stem.a")(batch)
    expected = module("tail")(module("block.left")(a) + torch.relu(torch.tanh(a)))
    assert torch.equal(diamond(batch), expected)


def test_insert_before_the_output(diamond, batch):
    before = diamond(batch)
    diamond.insert_before(diamond.output_vertex(training=False), Neg(), name="negated")
    assert names_of(diamond.outputs) == ["negated"]
    assert torch.equal(diamond(batch), -before)


def test_insert_after_serves_every_use(diamond):
    stem = diamond.get_vertex_by_name("stem.a")
    inserted = diamond.insert_after(stem, nn.BatchNorm1d(4), name="stem.bn")
    assert names_of(stem.successors) == ["stem.bn"]
    assert names_of(inserted.successors) == ["block.left", "block.right"]
    assert names_of(diamond.inner_vertices)[:2] == ["stem.a", "stem.bn"]
    assert "stem.bn.weight" in diamond.state_dict()
    diamond.verify()


def test_insert_after_an_input_and_after_an_output(diamond, batch):
    before = diamond(batch)
    diamond.insert_after(diamond.input_vertices[0], nn.Identity())
    diamond.insert_after(diamond.outputs[0], Neg())
    assert torch.equal(diamond(batch), -before)
    assert names_of(diamond.outputs) == ["tail_neg"]


def test_insert_after_an_unused_vertex_leaves_the_new_one_unused(diamond):
    unused = diamond.add_vertex("unused", nn.ReLU(), [diamond.input_vertices[0]])
    inserted = diamond.insert_after(unused, nn.ReLU())
    assert unused.successors == (inserted,)
    assert inserted.uses == ()


def test_insert_between_takes_all_edges(batch):
    dag = DagModule()
    x = dag.add_input("x")
    a = dag.add_vertex("a", nn.Tanh(), [x])
    difference = dag.add_vertex("difference", Sub(), [a, a])
    other = dag.add_vertex("other", Sub(), [difference, a])
    dag.set_output(other)
    inserted = dag.insert_between(a, difference, Neg())
    assert difference.predecessors == (inserted, inserted)
    assert other.predecessors == (difference, a)
    dag.verify()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda dag, v: dag.insert_before(v, nn.ReLU(), index=2), "there is no operand 2"),
        (lambda dag, v: dag.insert_before(v, nn.ReLU(), index=-1), "there is no operand -1"),
        (lambda dag, v: dag.insert_before(dag.input_vertices[0], nn.ReLU()), "has 0 operands"),
        (lambda dag, v: dag.insert_before(v, torch.relu), "needs an nn.Module"),
        (lambda dag, v: dag.insert_before(v, dag), "other than the graph itself"),
        (lambda dag, v: dag.insert_after(v, nn.ReLU(), name="tail"), "'tail' is taken"),
        (lambda dag, v: dag.insert_after(v, nn.ReLU(), name="tail.relu"), "lies inside one"),
        (lambda dag, v: dag.insert_after(v, nn.ReLU(), name="block"), "'block' is taken"),
        (lambda dag, v: dag.insert_after(v, nn.ReLU(), name=""), "is not a vertex name"),
        (lambda dag, v: dag.insert_after(v, nn.ReLU(), name="a b"), "is not a vertex name"),
        (lambda dag, v: dag.insert_after(v, nn.ReLU(), name="forward"), "'forward' is taken"),
        (lambda dag, v: dag.insert_after(v, nn.ReLU(), name="new.training"), "'new.training' is taken"),
        (lambda dag, v: dag.insert_between(dag.input_vertices[0], v, nn.ReLU()), "does not read"),
        (lambda dag, v: dag.insert_after("tail", nn.ReLU()), "'tail' is not a vertex of this graph"),
        (lambda dag, v: dag.insert_after(dag.clone().outputs[0], nn.ReLU()), "is not a vertex of this graph"),
    ],
)
def test_a_refused_insertion_changes_nothing(diamond, edit, message):
    text, keys = str(diamond), list(diamond.state_dict())
    with pytest.raises(GraphError, match=message):
        edit(diamond, diamond.get_vertex_by_name("block.sum"))
    assert (str(diamond), list(diamond.state_dict())) == (text, keys)
    diamond.verify()
