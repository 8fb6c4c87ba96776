from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

import torch_dag_core as td


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.drop = nn.Linear(4, 4), nn.Dropout(0.5)
        self.blocks = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))

    def forward(self, x):
        return {"out": self.blocks(self.drop(self.first(x))), "none": None}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def dag(model):
    return td.build_from_unstructured_module(model, torch.randn(2, 4))


def test_a_model_and_its_graph_agree(model, dag):
    comparison = td.compare_module_outputs(model, dag, torch.randn(3, 4))
    assert comparison.equal
    assert comparison.first is None
    assert [step.name for step in comparison.steps] == ["first", "drop", "blocks.0", "blocks.1", "blocks.2"]
    assert "agree" in str(comparison)


def test_equal_seeds_make_training_comparable(model, dag):
    assert td.compare_module_outputs(model.train(), dag.train(), torch.randn(3, 4)).equal


@pytest.mark.parametrize("both_graphs", [False, True])
def test_the_first_difference_is_named(model, dag, both_graphs):
    other = copy.deepcopy(dag)
    with torch.no_grad():
        other.get_vertex_by_name("blocks.0").module.bias.add_(0.5)
    comparison = td.compare_module_outputs(dag if both_graphs else model, other, torch.randn(3, 4))
    assert not comparison.equal
    assert comparison.first.name == "blocks.0"
    assert comparison.first.absolute == pytest.approx(0.5)
    assert "first beyond 1e-05: 'blocks.0'" in str(comparison)


def test_numbers_by_hand():
    class Adds(nn.Module):
        def __init__(self, amount):
            super().__init__()
            self.amount = amount

        def forward(self, x):
            return x + self.amount

    comparison = td.compare_module_outputs(Adds(0.0), Adds(0.5), torch.tensor([1.0, -4.0]))
    assert (comparison.absolute, comparison.relative) == (0.5, 0.125)


def test_shapes_that_differ_are_infinitely_apart():
    comparison = td.compare_module_outputs(nn.Linear(4, 2), nn.Linear(4, 3), torch.randn(1, 4))
    assert math.isinf(comparison.absolute)


def test_infinities_and_nans_in_one_place_are_equal():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.stack([x / 0, x.log(), x])

    dag = td.build_from_unstructured_module(Odd(), torch.ones(2))
    assert td.compare_module_outputs(Odd(), dag, torch.tensor([1.0, -1.0])).equal


def test_a_tolerance_decides_what_a_difference_is(model, dag):
    other = copy.deepcopy(dag)
    with torch.no_grad():
        other.get_vertex_by_name("first").module.bias.add_(1e-4)
    x = torch.randn(3, 4)
    assert td.compare_module_outputs(model, other, x).first.name == "first"
    assert td.compare_module_outputs(model, other, x, tolerance=0.1).first is None


def test_the_random_state_and_the_hooks_are_left_alone(model, dag):
    state = torch.get_rng_state()
    td.compare_module_outputs(model.train(), dag.train(), torch.randn(0, 4))
    torch.set_rng_state(state)
    td.compare_module_outputs(model, dag, torch.zeros(2, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks for module in model.modules())
