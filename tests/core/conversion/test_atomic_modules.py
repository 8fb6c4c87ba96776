"""Modules that decide on values stay one vertex, and are not changed by being traced."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import TraceError


class Decides(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((4,), 3.0))
        self.register_buffer("seen", torch.zeros(()))
        self.inner = nn.Linear(4, 4)

    def forward(self, x):
        self.seen += 1
        if bool(x.sum() > 0) or float(self.scale.detach().max()) > 10:
            return self.inner(x) * self.scale
        rows = [row * 2 for row in x.tolist()[0]]
        return x - torch.tensor(rows).sum()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.decides, self.last = nn.Linear(4, 4), Decides(), nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.decides(self.first(x)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


def test_a_module_that_decides_on_values_is_one_vertex(net):
    dag = build_from_unstructured_module(net, torch.randn(2, 4), atomic_modules=(Decides,))
    assert [vertex.name for vertex in dag.inner_vertices] == ["first", "decides", "last"]
    for x in (torch.ones(5, 4), -torch.ones(3, 4)):
        assert torch.equal(dag(x), net(x))


def test_tracing_leaves_the_module_as_it_was(net):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    build_from_unstructured_module(net, torch.randn(2, 4), atomic_modules=(Decides,))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(value.is_meta for value in net.state_dict().values())


def test_without_being_atomic_it_is_named(net):
    with pytest.raises(TraceError, match=r"in module 'decides'.*register the enclosing module as atomic"):
        build_from_unstructured_module(net, torch.randn(2, 4))
