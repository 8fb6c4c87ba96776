"""FLOPs and parameters as functions of what is kept."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import torch_dag_core as td
from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_pruning import analyze
from torch_dag_pruning.analysis.polynomials import CostModel, Polynomial, Variables, polynomial


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.b, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.norm(self.a(x)))
        return self.head((x + self.b(x)).mean((2, 3)))


@pytest.fixture
def analysis():
    return analyze(build_from_unstructured_module(Net(), torch.randn(2, 3, 9, 9)))


def by_hand(n):
    """Return the FLOPs of one sample with n channels on 7 x 7 positions."""
    conv_a, conv_b = 2 * 49 * n * 27 + 49 * n, 2 * 49 * n * 9 * n + 49 * n
    norm, relu, add, mean = 2 * 49 * n, 49 * n, 49 * n, 49 * n
    return conv_a + norm + relu + conv_b + add + mean + 2 * n * 5 + 5


@pytest.mark.parametrize("n", [1, 3, 8])
def test_flops_are_those_of_one_sample(analysis, n):
    cost = analysis.cost({analysis.orbits[0].atom.id: n})
    assert cost == by_hand(n)
    assert isinstance(cost, int)


class WithAuxiliaryHead(Net):
    def __init__(self):
        super().__init__()
        self.auxiliary = nn.Conv2d(8, 6, 3)

    def forward(self, x):
        y = F.relu(self.norm(self.a(x)))
        z = self.head((y + F.dropout(self.b(y), training=self.training) / 2).mean((2, 3)))
        return (z, self.auxiliary(y).mean((2, 3))) if self.training else z


def test_only_what_evaluation_needs_costs_flops(analysis):
    dag = build_from_unstructured_module(WithAuxiliaryHead(), torch.randn(2, 3, 9, 9))
    assert analyze(dag).cost() == td.flops(dag).flops == analysis.cost() + 8 * 49
    assert analyze(dag).parameters_count() == analysis.parameters_count() + 9 * 8 * 6 + 6


def test_orbits_left_out_are_whole(analysis):
    assert analysis.cost() == by_hand(8)


@pytest.mark.parametrize("n", [1, 3, 8])
def test_parameters(analysis, n):
    count = analysis.parameters_count({analysis.orbits[0].atom.id: n})
    assert count == 27 * n + n + 2 * n + 9 * n * n + n + 5 * n + 5


def test_flops_are_differentiable(analysis):
    n = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    cost = analysis.cost({analysis.orbits[0].atom.id: n})
    assert float(cost.detach()) == by_hand(3)
    (slope,) = torch.autograd.grad(cost, n)
    assert float(slope) == pytest.approx((by_hand(4) - by_hand(2)) / 2)


def test_the_example_size_decides_the_flops(analysis):
    larger = analyze(analysis.dag, torch.randn(5, 3, 16, 16))
    assert larger.cost() > 3 * analysis.cost()


def test_polynomials_compute_as_numbers_do():
    variables = Variables(lambda axis: axis)
    from torch_dag_pruning.axes import AxisSolver

    solver = AxisSolver()
    x, y = solver.atom(5), solver.atom(7)
    px, py = variables.size(x), variables.size(y)
    expression = 3 * px * py + px * px - 2 * py + (1 - px) + sum([px, py])
    model = CostModel(polynomial(expression), variables.axes)
    assert model({x.id: 5, y.id: 7}) == 3 * 35 + 25 - 14 - 4 + 12
    soft = {x.id: torch.tensor(5.0), y.id: torch.tensor(7.0)}
    assert float(model(soft)) == 3 * 35 + 25 - 14 - 4 + 12
    assert variables.size(solver.fixed(4)) == 4


def test_a_constant_polynomial():
    model = CostModel(Polynomial({(): 7}), [])
    assert model({}) == 7
