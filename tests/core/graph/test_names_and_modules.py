"""Names, shared modules and copies: the records behind a graph."""

import copy
import itertools
import pickle

import pytest
import torch
from torch import nn

from torch_dag_core.errors import CycleError, GraphError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.graph import Scope
from torch_dag_core.ops.arithmetic import Add


@pytest.fixture
def shared():
    """Three vertices that call one Linear."""
    dag = DagModule()
    linear = nn.Linear(4, 4)
    vertex = dag.add_input("x")
    for name in ("part.a", "b", "c"):
        vertex = dag.add_vertex(name, linear, [vertex])
    dag.set_output(vertex)
    return dag


def test_a_shared_module_is_registered_under_its_first_vertex(shared):
    assert list(shared.state_dict()) == ["part.a.weight", "part.a.bias"]
    shared.remove_vertex(shared.get_vertex_by_name("part.a"))
    assert list(shared.state_dict()) == ["b.weight", "b.bias"]
    assert not hasattr(shared, "part")
    shared.verify()


def test_no_name_may_lie_inside_a_vertex_that_may_inherit_a_module(shared):
    with pytest.raises(GraphError, match=r"'b\.inside' is taken"):
        shared.add_vertex("b.inside", nn.Tanh(), [])
    assert shared.unique_name("b.inside") == "b_inside"
    shared.replace_module(shared.get_vertex_by_name("part.a"), nn.Tanh())
    assert shared.get_submodule("b") is shared.get_vertex_by_name("c").module
    shared.verify()


def test_no_name_may_be_a_folder_of_a_vertex_that_may_inherit_a_module(shared):
    shared.rename(shared.get_vertex_by_name("c"), "folder.c")
    with pytest.raises(GraphError, match="'folder' is taken"):
        shared.add_vertex("folder", nn.Tanh(), [])
    shared.verify()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda dag: pickle.loads(pickle.dumps(dag))])
def test_a_copy_inherits_who_registers_a_shared_module(shared, duplicate):
    first, second = (shared.get_vertex_by_name(name) for name in ("part.a", "b"))
    linear = first.module
    shared.replace_module(first, nn.Tanh())
    shared.replace_module(first, linear)
    assert list(shared.state_dict()) == ["b.weight", "b.bias"]
    twin = duplicate(shared)
    twin.verify()
    assert list(twin.state_dict()) == ["b.weight", "b.bias"]
    twin.remove_vertex(twin.get_vertex_by_name(second.name))
    twin.verify()
    assert list(twin.state_dict()) == ["part.a.weight", "part.a.bias"]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda dag: pickle.loads(pickle.dumps(dag))])
def test_a_copy_is_equal_and_independent(diamond, batch, duplicate):
    twin = duplicate(diamond)
    assert str(twin) == str(diamond)
    assert list(twin.state_dict()) == list(diamond.state_dict())
    assert torch.equal(twin(batch), diamond(batch))
    twin.remove_vertex(twin.get_vertex_by_name("tail"))
    assert "tail" in diamond
    twin.verify()
    diamond.verify()


def test_unique_names_are_the_first_free_ones(diamond):
    assert diamond.unique_name("free") == "free"
    x = diamond.input_vertices[0]
    for expected in ("tail_1", "tail_2", "tail_3", "tail_4"):
        assert diamond.unique_name("tail") == expected
        diamond.add_vertex(expected, nn.Tanh(), [x])


@pytest.mark.parametrize("taken", ["tail", "block", "x", "forward", "training", "vertices", "tail.inside", "forward.x"])
def test_unique_names_avoid_what_is_taken(diamond, taken):
    name = diamond.unique_name(taken)
    assert name != taken
    assert (name in diamond, hasattr(diamond, name)) == (False, False)


def test_rename_moves_the_module_and_keeps_the_order(diamond):
    order = [vertex.module for vertex in diamond.inner_vertices]
    diamond.rename(diamond.get_vertex_by_name("block.left"), "elsewhere.left")
    assert diamond.get_submodule("elsewhere.left") is order[1]
    assert [vertex.module for vertex in diamond.inner_vertices] == order
    assert "block.left" not in diamond
    diamond.verify()


def test_rename_may_deepen_shorten_or_keep_a_name(diamond):
    stem = diamond.get_vertex_by_name("stem.a")
    for name in ("stem", "stem.a.b", "stem.a.b", "stem.a"):
        diamond.rename(stem, name)
        assert diamond.get_submodule(name) is stem.module
        diamond.verify()


def test_a_refused_rename_changes_nothing(diamond):
    text = str(diamond)
    with pytest.raises(GraphError, match="'block' is taken"):
        diamond.rename(diamond.get_vertex_by_name("tail"), "block")
    assert str(diamond) == text
    diamond.verify()


def test_a_cycle_is_refused_and_named(diamond):
    text = str(diamond)
    with pytest.raises(CycleError) as caught:
        diamond.set_predecessor(diamond.get_vertex_by_name("stem.a"), 0, diamond.get_vertex_by_name("tail"))
    start, *middle, end = caught.value.cycle
    assert start == end == "stem.a"
    assert middle in (["block.left", "block.sum", "tail"], ["block.right", "block.sum", "tail"])
    assert str(diamond) == text
    diamond.verify()


def test_a_vertex_may_not_read_itself(diamond):
    tail = diamond.get_vertex_by_name("tail")
    with pytest.raises(CycleError, match="tail -> tail"):
        diamond.set_predecessor(tail, 0, tail)


def test_a_cycle_made_behind_the_graphs_back_is_found(diamond):
    stem, tail = (diamond.get_vertex_by_name(name) for name in ("stem.a", "tail"))
    diamond._link(stem, 0, tail)
    with pytest.raises(CycleError) as caught:
        diamond.verify()
    cycle = [diamond.get_vertex_by_name(name) for name in caught.value.cycle]
    assert cycle[0] is cycle[-1]
    assert all(source in reader.predecessors for source, reader in itertools.pairwise(cycle))


def test_replace_uses_of_chosen_edges_only(diamond):
    stem, total = (diamond.get_vertex_by_name(name) for name in ("stem.a", "block.sum"))
    diamond.replace_uses(diamond.get_vertex_by_name("block.right"), stem, [(total, 1)])
    assert total.predecessors[1] is stem
    with pytest.raises(GraphError, match="is not a use of"):
        diamond.replace_uses(stem, diamond.input_vertices[0], [(total, 0)])
    diamond.verify()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda dag, v: v._uses.clear(), "do not agree"),
        (lambda dag, v: setattr(v, "_name", "other"), "do not agree"),
        (lambda dag, v: dag._vertices.pop(v.name), "which is not in the graph"),
        (lambda dag, v: setattr(v, "_module", nn.Tanh()), "is not registered"),
        (lambda dag, v: dag._modules.pop("stem"), "is not registered"),
        (lambda dag, v: dag._owners.update({nn.Tanh(): {v: None}}), "not in the graph"),
    ],
)
def test_verify_finds_damage(diamond, damage, message):
    damage(diamond, diamond.get_vertex_by_name("stem.a"))
    with pytest.raises(GraphError, match=message):
        diamond.verify()


def test_new_folders_take_the_mode_of_the_graph(diamond):
    diamond.eval()
    diamond.insert_after(diamond.outputs[0], nn.Tanh().eval(), name="new.folder.tanh")
    assert [module.training for module in diamond.modules() if isinstance(module, Scope)] == [False] * 4
    assert not any(module.training for module in diamond.modules())


def test_a_graph_without_a_spec_takes_its_inputs_positionally():
    dag = DagModule()
    dag.set_output(dag.add_vertex("sum", Add(), [dag.add_input("a"), dag.add_input("b")]))
    assert torch.equal(dag(torch.ones(2), torch.ones(2)), torch.full((2,), 2.0))
