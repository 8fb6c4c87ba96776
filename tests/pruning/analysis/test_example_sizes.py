"""The sizes at which a graph is analysed, where it runs at fewer sizes than it says."""

import pytest
import torch
from torch import nn

from torch_dag_core import build_from_unstructured_module
from torch_dag_core.errors import InputError
from torch_dag_core.ops.layout import Reshape
from torch_dag_pruning import Cut, Plan, analyze
from torch_dag_pruning.cut import removal_proof


class Tokens(nn.Module):
    """Pixels as tokens, and back."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        x = self.a(x).flatten(2).transpose(1, 2)
        return self.c(torch.relu(self.b(x)))


def with_target(*shape):
    """Return a graph that leaves its sizes free, but reshapes to numbers."""
    dag = build_from_unstructured_module(Tokens().eval(), torch.randn(4, 3, 4, 4))
    vertex = next(v for v in dag.inner_vertices if isinstance(v.module, (Reshape, nn.Flatten)))
    dag.replace_module(vertex, Reshape(shape))
    return dag


def proved(dag):
    analysis = analyze(dag)
    plan = Plan.random(analysis, 0.5, 0)
    assert removal_proof(analysis, plan, Cut(analysis, plan).removed(), dtype=torch.float64).worst < 1e-12
    return analysis


def test_a_fixed_space_is_found_by_running():
    analysis = proved(with_target(-1, 8, 16))
    assert [orbit.n for orbit in analysis.orbits] == [8, 8]
    assert analysis.inputs[0].shape == (2, 3, 4, 4)


def test_a_fixed_batch_is_found_by_running():
    analysis = proved(with_target(4, 8, 16))
    assert [orbit.n for orbit in analysis.orbits] == [8, 8]
    assert analysis.inputs[0].shape == (4, 3, 4, 4)


def test_a_graph_that_never_runs_is_refused():
    with pytest.raises(InputError, match="cannot be run without data"):
        analyze(with_target(4, 8, 15))


class RoutedKernels(nn.Module):
    """A mixture of kernels for each sample, run as one convolution with a group for each sample (arXiv:1904.04971)."""

    def __init__(self, groups=1):
        super().__init__()
        self.a, self.route, self.b = nn.Conv2d(3, 8, 1), nn.Linear(8, 4), nn.Conv2d(6, 3, 1)
        self.kernels = nn.Parameter(torch.randn(4, 6 * (8 // groups) * 9))
        self.groups = groups

    def forward(self, x):
        x = torch.relu(self.a(x))
        n, c, h, w = x.shape
        kernels = torch.sigmoid(self.route(x.mean((2, 3)))) @ self.kernels
        kernels = kernels.view(n * 6, c // self.groups, 3, 3)
        y = nn.functional.conv2d(x.reshape(1, n * c, h, w), kernels, padding=1, groups=n * self.groups)
        return self.b(y.view(n, 6, h, w))


@pytest.mark.parametrize(("groups", "orbits"), [(1, [8, 4, 6]), (2, [2, 4, 4, 3])])
def test_groups_may_follow_the_batch(groups, orbits):
    dag = build_from_unstructured_module(RoutedKernels(groups).eval(), torch.randn(2, 3, 8, 8))
    analysis = proved(dag)
    assert sorted(orbit.n for orbit in analysis.orbits) == sorted(orbits), str(analysis)
