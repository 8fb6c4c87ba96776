"""Random straight-line models, with views, writes into them, shared layers, state and both modes.

``RANDOM_PROGRAMS=1250 pytest --hypothesis-seed=7`` draws that many in each test from a seed.
"""

from __future__ import annotations

import copy
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from torch_dag_core.conversion.convert import build_from_unstructured_module

WIDTH = 6


def buffered(net, a, b, k):
    net.total += a.mean(0).detach()
    return b + net.total


def by_mode(net, a, b, k):
    return a * 2 if net.training else b - 1


def without_gradient(net, a, b, k):
    with torch.no_grad():
        kept = a * b
    return kept + a


PURE = {
    "add": lambda net, a, b, k: a + b,
    "sub": lambda net, a, b, k: 1.5 - a * k,
    "mul": lambda net, a, b, k: a * b.sigmoid(),
    "tanh": lambda net, a, b, k: a.tanh(),
    "linear": lambda net, a, b, k: net.layers[k % 2](a),
    "norm": lambda net, a, b, k: net.norm(a),
    "dropout": lambda net, a, b, k: functional.dropout(a, 0.3, net.training),
    "module dropout": lambda net, a, b, k: net.drop(a),
    "scale": lambda net, a, b, k: a * net.scale,
    "cat of parts": lambda net, a, b, k: torch.cat([a[:, k:], b[:, :k]], 1),
    "chunks": lambda net, a, b, k: torch.cat(a.chunk(2, 1)[::-1], 1),
    "where": lambda net, a, b, k: torch.where(a > b, a, k),
    "heads": lambda net, a, b, k: a.view(-1, 2, 3).transpose(1, 2).reshape(a.shape[0], WIDTH),
    "outer": lambda net, a, b, k: (a.unsqueeze(2) @ b.unsqueeze(1)).softmax(-1).sum(1),
    "batch mean": lambda net, a, b, k: a - b.mean(0, keepdim=True).expand(b.shape[0], -1),
    "zeros": lambda net, a, b, k: torch.cat([a, a.new_zeros(a.size(0), k)], 1)[:, -WIDTH:],
    "range": lambda net, a, b, k: a + torch.arange(a.shape[0])[:, None] * 0.1,
    "gather": lambda net, a, b, k: a.gather(1, b.argsort(1)),
    "detach": lambda net, a, b, k: a.detach() * b,
    "no grad": without_gradient,
    "by mode": by_mode,
    "state": buffered,
}
WRITES = {
    "add_": lambda net, a, b, k: a.add_(b, alpha=0.5),
    "iadd of a view": lambda net, a, b, k: a[:, k:].mul_(2).sub_(1),
    "column": lambda net, a, b, k: a.__setitem__((slice(None), k), 0.25),
    "columns": lambda net, a, b, k: a.__setitem__((slice(None), slice(0, k)), b[:, WIDTH - k :].clone()),
    "view of a view": lambda net, a, b, k: a.view(-1, 2, 3)[:, k % 2].t().clamp_(max=0.5),
    "kept view": lambda net, a, b, k: a.view(-1, 3, 2)[:, k % 3 : k % 3 + 1].squeeze(1),
    "relu_": lambda net, a, b, k: functional.relu(a, inplace=True),
    "module relu_": lambda net, a, b, k: net.act(a),
    "copy_": lambda net, a, b, k: a.copy_(b * 2),
    "masked": lambda net, a, b, k: a.masked_fill_(b > 0.5, 0.0),
    "fill of a part": lambda net, a, b, k: a.narrow(1, k, 2).fill_(3.0) if k < 5 else a.zero_(),
}
STEPS = {**PURE, **WRITES}


class Program(nn.Module):
    def __init__(self, steps):
        super().__init__()
        self.steps = steps
        self.layers = nn.ModuleList([nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)])
        self.norm, self.drop, self.act = nn.BatchNorm1d(WIDTH), nn.Dropout(0.2), nn.ReLU(inplace=True)
        self.scale = nn.Parameter(torch.rand(WIDTH))
        self.register_buffer("total", torch.zeros(WIDTH))

    def forward(self, x):
        values, kept = [x * 1.0, self.layers[0](x)], []
        for name, i, j, k in self.steps:
            result = STEPS[name](self, values[i % len(values)], values[j % len(values)], k)
            if result is not None and result.shape == x.shape:
                values.append(result)
            if name in KEPT:
                kept.append(result.clone())  # read before anything may overwrite it
        return values[-3:] + kept


def programs(names):
    index = st.integers(0, 7)
    step = st.tuples(st.sampled_from(sorted(names)), index, index, st.integers(1, WIDTH - 1))
    return st.lists(step, min_size=1, max_size=10)


def results(model, x, *, training):
    model = copy.deepcopy(model).train(training)
    torch.manual_seed(3)
    return model, model(x)


def assert_close(expected, actual):
    for a, b in zip(expected, actual, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def check(model, dag, *, batches):
    for training in (False, True):
        for batch in batches:
            x = torch.randn(batch, WIDTH)
            before = x.clone()
            (source, expected), (graph, actual) = (results(m, x, training=training) for m in (model, dag))
            assert_close(expected, actual)
            assert torch.equal(x, before)
            state = graph.state_dict()
            for key, value in source.state_dict().items():
                if key in state:
                    torch.testing.assert_close(state[key], value, rtol=1e-5, atol=1e-5)
            yield source, expected, graph, actual


KEPT = {"norm", "dropout", "module dropout"}
"""Calls that act even where nothing reads their result: they move statistics, or the random state."""


PROGRAMS = int(os.environ.get("RANDOM_PROGRAMS", "0"))
CHECKS = settings(max_examples=PROGRAMS or 40, print_blob=True)


@CHECKS
@given(programs(STEPS))
def test_any_program_computes_the_same(steps):
    torch.manual_seed(0)
    model = Program(steps).eval()
    with torch.no_grad():
        dag = build_from_unstructured_module(model, torch.randn(2, WIDTH))
        for _ in check(model, dag, batches=(2, 5)):
            pass
    dag.verify()
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.fixture
def _double_precision():
    """Gradients that cancel out are no more than rounding, which single precision does not tell from a difference."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@CHECKS
@pytest.mark.usefixtures("_double_precision")
@given(programs(PURE))
def test_any_program_without_writes_learns_the_same(steps):
    torch.manual_seed(0)
    model = Program(steps).eval()
    dag = build_from_unstructured_module(model, torch.randn(2, WIDTH))
    for source, expected, graph, actual in check(model, dag, batches=(3,)):
        assert [value.requires_grad for value in expected] == [value.requires_grad for value in actual]
        if not any(value.requires_grad for value in expected):
            continue
        for result in (expected, actual):
            sum(value.square().sum() for value in result).backward()
        gradients = graph.state_dict(keep_vars=True)
        for name, parameter in source.named_parameters():
            if name in gradients and parameter.grad is not None:
                torch.testing.assert_close(gradients[name].grad, parameter.grad, rtol=1e-8, atol=1e-8)
