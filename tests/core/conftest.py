"""Graphs built by hand, a count of the Python calls that an operation makes, and graphs compared with their models."""

from __future__ import annotations

import copy
import dataclasses
import gc
import sys

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.ops.arithmetic import Add
from torch_dag_core.serialization import load


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def faithful():
    """Return ``check(model, make)``: convert, compare with the model at several batch sizes and in training."""
    return check


@pytest.fixture
def reloaded(faithful, tmp_path):
    """Return ``check(model, make)``: as `faithful`, then the same again with the graph saved and loaded."""

    def check_file(model, make, *, relative=0.0, **options):
        model = as_model(model)
        dag = faithful(model, make, relative=relative, **options)
        dag.load_state_dict(model.state_dict())
        dag.save(tmp_path / "dag.safetensors")
        again = load(tmp_path / "dag.safetensors")
        compare_once(model, again.eval(), make(3), relative)
        compare_training(model, again, make(3), relative)
        return dag

    return check_file


class Body(nn.Module):
    """A model made of one function, with a layer in front so that there is something to learn."""

    def __init__(self, function):
        super().__init__()
        self.fc, self.function = nn.Linear(6, 6), function

    def forward(self, x):
        return self.function(self.fc(x))


@pytest.fixture
def model_of():
    """Return ``make(function)``: a `Body`."""
    return Body


def as_model(given):
    """Return a model as it is, a function as a `Body`."""
    return given if isinstance(given, nn.Module) else Body(given)


def check(model, make, *, batches=(1, 2, 5), relative=0.0, training=True, **options):
    """Convert ``model``, or a `Body` of a function, with ``make(2)`` and compare; returns the graph."""
    model = as_model(model).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    dag = build_from_unstructured_module(model, make(2), **options)
    dag.verify()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    for batch in batches:
        compare_once(model, dag, make(batch), relative)
    if training:
        for batch in batches:
            compare_training(model, dag, make(max(batch, 2)), relative)
    return dag


def call(module, inputs):
    if isinstance(inputs, dict):
        return module(**inputs)
    if isinstance(inputs, torch.Tensor):
        return module(inputs)
    if len(inputs) == 2 and isinstance(inputs[0], tuple) and isinstance(inputs[1], dict):
        return module(*inputs[0], **inputs[1])
    return module(*inputs)


def compare_once(model, dag, inputs, relative):
    given = copy.deepcopy(inputs)
    with torch.no_grad():
        torch.manual_seed(1)
        expected = call(model, copy.deepcopy(inputs))
        torch.manual_seed(1)
        assert_same(expected, call(dag, inputs), relative)
    assert_same(given, inputs, 0.0)


def compare_training(model, dag, inputs, relative):
    """Compare outputs, gradients and buffers of one step in training mode with equal seeds."""
    model, dag = copy.deepcopy(model).train(), copy.deepcopy(dag).train()
    torch.manual_seed(2)
    expected = call(model, copy.deepcopy(inputs))
    torch.manual_seed(2)
    actual = call(dag, inputs)
    assert_same(expected, actual, relative)
    gradients, others = (gradients_of(module, result) for module, result in ((model, expected), (dag, actual)))
    shared = gradients.keys() & others.keys()
    assert not gradients or shared
    for name in shared:
        assert_same(gradients[name], others[name], max(relative, 1e-6), name)
    state = dag.state_dict()
    for key, value in model.state_dict().items():
        if key in state:
            assert_same(value, state[key], relative, key)


def gradients_of(module, result):
    # Elements count differently, because results that add up to a constant (softmax) would have no gradient but noise.
    total = sum((leaf.abs() * graded(leaf)).sum() for leaf in leaves(result) if leaf.requires_grad)
    if not isinstance(total, torch.Tensor):
        return {}
    total.backward()
    state = module.state_dict(keep_vars=True)
    return {name: value.grad for name, value in state.items() if value.grad is not None}


def graded(leaf):
    """Return a factor for each element of a tensor, which differs much between neighbours."""
    return torch.arange(leaf.numel()).cos().to(leaf.abs().dtype).reshape(leaf.shape)


def leaves(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if dataclasses.is_dataclass(value):
        return leaves([getattr(value, field.name) for field in dataclasses.fields(value)])
    if isinstance(value, dict):
        return leaves(list(value.values()))
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, (tuple, list)) else []


def assert_same(expected, actual, relative=0.0, where="result"):
    """Assert equal structure, types, shapes and values; ``relative`` to the largest element."""
    if isinstance(expected, torch.Tensor):
        assert (expected.shape, expected.dtype) == (actual.shape, actual.dtype), where
        if relative == 0.0:
            assert torch.allclose(expected, actual, 0, 0, equal_nan=True), where
        elif expected.numel():
            error = (expected.detach() - actual.detach()).abs().max()
            assert error <= relative * expected.detach().abs().max(), (where, error)
    elif dataclasses.is_dataclass(expected):
        names = [field.name for field in dataclasses.fields(expected)]
        assert [field.name for field in dataclasses.fields(actual)] == names
        assert type(actual).__name__ == type(expected).__name__
        for name in names:
            assert_same(getattr(expected, name), getattr(actual, name), relative, f"{where}.{name}")
    elif isinstance(expected, dict):
        assert list(expected) == list(actual)
        for key, value in expected.items():
            assert_same(value, actual[key], relative, f"{where}[{key!r}]")
    elif isinstance(expected, (tuple, list)):
        assert isinstance(actual, list) == isinstance(expected, list)
        assert getattr(actual, "_fields", None) == getattr(expected, "_fields", None)
        assert len(expected) == len(actual)
        for index, (a, b) in enumerate(zip(expected, actual, strict=True)):
            assert_same(a, b, relative, f"{where}[{index}]")
    else:
        assert expected == actual, where


@pytest.fixture
def chain_of():
    def build(length, module=nn.Tanh, prefix="v"):
        dag = DagModule()
        vertex = dag.add_input("x")
        for index in range(length):
            vertex = dag.add_vertex(f"{prefix}{index}", module(), [vertex])
        dag.set_output(vertex)
        return dag

    return build


@pytest.fixture
def diamond():
    """x -> stem.a -> (left, right) -> sum -> tail"""
    dag = DagModule()
    x = dag.add_input("x")
    a = dag.add_vertex("stem.a", nn.Linear(4, 4), [x])
    left = dag.add_vertex("block.left", nn.Linear(4, 4), [a])
    right = dag.add_vertex("block.right", nn.Tanh(), [a])
    total = dag.add_vertex("block.sum", Add(), [left, right])
    tail = dag.add_vertex("tail", nn.Linear(4, 4), [total])
    dag.set_output(tail)
    return dag


@pytest.fixture
def outer_of():
    """Return a function that puts a graph into another as its one vertex ``nested``."""

    def build(nested, *, inputs=1):
        dag = DagModule()
        vertices = [dag.add_input(f"x{i}") for i in range(inputs)]
        vertex = dag.add_vertex("nested", nested, vertices)
        dag.set_output(vertex)
        return dag, vertex

    return build


@pytest.fixture
def batch():
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def calls_of():
    """Count Python calls: a measure of work that no other load on the machine changes."""

    def count(action):
        calls = 0

        def on_event(frame, event, arg):
            nonlocal calls
            calls += event == "call"

        before = sys.getprofile()
        gc.collect()
        gc.disable()  # else finalizers of what earlier tests left would count
        sys.setprofile(on_event)
        try:
            action()
        finally:
            sys.setprofile(before)
            gc.enable()
        return calls

    return count
