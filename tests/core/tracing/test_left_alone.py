"""A conversion leaves no trace on the model, nor anywhere else."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import TraceError


class Messy(nn.Module):
    """Changes everything it can."""

    def __init__(self, *, fails=False):
        super().__init__()
        self.fc, self.bn, self.drop = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("late", None)
        self.seen, self.count, self.cache = [], 0, {"a": 1}
        self.fails = fails

    def forward(self, x):
        self.calls += 1
        self.count += 1
        self.seen.append(x.shape)
        self.cache["x"] = x
        self.late = torch.zeros(2)
        self.extra = x * 2
        self.add_module("lazy", nn.Linear(1, 1))
        torch.rand(1)
        random.random()
        if self.fails:
            raise ValueError("no")
        return self.drop(self.bn(self.fc(x)))


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_as_it_was(fails, training):
    model = Messy(fails=fails).train(training)
    model.bn.eval()
    parameters = list(model.parameters())
    state, keys = copy.deepcopy(model.state_dict()), {path: set(vars(m)) for path, m in model.named_modules()}
    modes = {path: module.training for path, module in model.named_modules()}
    x = torch.randn(2, 4)
    random.seed(5)
    torch.manual_seed(5)
    random_state, torch_state = random.getstate(), torch.get_rng_state()
    call, apply = nn.Module.__call__, vars(torch.autograd.Function).get("apply")

    if fails:
        with pytest.raises(TraceError, match=r"ValueError: no"):
            build_from_unstructured_module(model, x)
    else:
        build_from_unstructured_module(model, x)

    assert [a is b for a, b in zip(parameters, model.parameters(), strict=True)] == [True] * len(parameters)
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert {path: module.training for path, module in model.named_modules()} == modes
    assert {path: set(vars(m)) for path, m in model.named_modules()} == keys
    assert (model.seen, model.count, model.cache, model.late) == ([], 0, {"a": 1}, None)
    assert (random.getstate(), nn.Module.__call__, vars(torch.autograd.Function).get("apply")) == (
        random_state,
        call,
        apply,
    )
    assert torch.equal(torch.get_rng_state(), torch_state)
    for tensor in (*model.parameters(), *model.buffers(), x):
        assert not getattr(tensor, "__dict__", None)
    assert torch.is_grad_enabled()


def test_plain_tensors_keep_no_mark():
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.randn(4)

        def forward(self, x):
            return x + self.table

    model = Plain()
    build_from_unstructured_module(model, torch.randn(2, 4))
    assert not model.table.__dict__


def test_the_graph_owns_its_tensors():
    model = Messy().eval()
    dag = build_from_unstructured_module(model, torch.randn(2, 4))
    x = torch.randn(3, 4)
    before = dag(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(dag(x), before)
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in dag.parameters()}


def test_the_modes_of_the_model_are_those_of_the_graph():
    model = Messy().train()
    model.bn.eval()
    dag = build_from_unstructured_module(model, torch.randn(2, 4))
    assert dag.training
    assert not dag.get_vertex_by_name("bn").module.training


def test_conversion_under_no_grad_is_the_same():
    class Teacher(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(x) * 2

    model, x = Teacher(), torch.randn(2, 4)
    with torch.no_grad():
        dag = build_from_unstructured_module(model, x)
        assert not torch.is_grad_enabled()
    assert str(dag) == str(build_from_unstructured_module(model, x))
    dag(x).sum().backward()
    assert dag.get_vertex_by_name("fc").module.weight.grad is not None


def test_two_conversions_give_the_same_graph():
    model, x = Messy().eval(), torch.randn(2, 4)
    assert str(build_from_unstructured_module(model, x)) == str(build_from_unstructured_module(model, x))
