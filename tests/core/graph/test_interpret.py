from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

import torch_dag_core as td


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.drop, self.head = nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(3, 2)

    def forward(self, x, y=None):
        left, right = self.drop(self.fc(x)).chunk(2, 1)
        noise = torch.randn_like(left) if self.training else left
        return {"out": self.head(left * right), "extra": (noise, None)}


@pytest.fixture
def dag():
    return td.build_from_unstructured_module(Net().eval(), torch.randn(2, 4))


@pytest.mark.parametrize("training", [False, True])
def test_the_last_pair_is_the_result(dag, training):
    dag.train(training)
    x = torch.randn(3, 4)
    torch.manual_seed(0)
    pairs = list(td.interpret(dag, x))
    torch.manual_seed(0)
    expected = dag(x)
    vertex, result = pairs[-1]
    assert vertex.name == "output"
    assert torch.equal(result["out"], expected["out"])
    assert torch.equal(result["extra"][0], expected["extra"][0])


def test_every_vertex_comes_once_after_what_it_reads(dag):
    seen = []
    for vertex, _ in td.interpret(dag, torch.randn(2, 4)):
        missing = [predecessor for predecessor in vertex.predecessors if predecessor not in seen]
        assert not missing or type(vertex.module).__name__ == "TrainingSwitch"
        seen.append(vertex)
    assert seen[0] is dag.input_vertices[0]
    assert len(set(seen)) == len(seen)


def test_arguments_are_checked_as_by_the_graph(dag):
    with pytest.raises(td.InputError, match="the graph takes"):
        next(td.interpret(dag, torch.randn(2, 5)))
    with pytest.raises(TypeError):
        next(td.interpret(dag))


def test_values_are_forgotten_after_their_last_use():
    dag = td.build_from_unstructured_module(nn.Sequential(*(nn.ReLU() for _ in range(5))), torch.randn(2, 4))
    references = []
    gc.disable()
    try:
        for vertex, value in td.interpret(dag, torch.randn(2, 4)):
            references.append(weakref.ref(value))
            del value
            assert sum(reference() is not None for reference in references) <= 3, vertex
    finally:
        gc.enable()


def test_hooks_of_vertices_fire(dag):
    dag = copy.deepcopy(dag)
    dag.get_vertex_by_name("fc").module.register_forward_hook(lambda module, args, output: output * 0)
    values = {vertex.name: value for vertex, value in td.interpret(dag, torch.randn(2, 4))}
    assert not values["fc"].any()
