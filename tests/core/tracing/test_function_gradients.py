"""Gradients of custom autograd functions are compared with those of their forwards, once and at small sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import TraceError

BACKWARDS = []
"""The shapes of gradients that backwards were given."""


class Runs(nn.Module):
    """Computes a function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Swish(torch.autograd.Function):
    """Saves memory, and nothing else."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        BACKWARDS.append(tuple(gradient.shape))
        s = torch.sigmoid(x)
        return gradient * (s * (1 + x * (1 - s)))


class Scaled(torch.autograd.Function):
    """Has the gradient of its forward for one of its factors alone."""

    @staticmethod
    def forward(ctx, x, factor):
        return x * factor

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2, None


class Clipped(torch.autograd.Function):
    """Passes all gradients, those of rare large numbers too."""

    @staticmethod
    def forward(ctx, x):
        return x.clamp(max=8)

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Halves(torch.autograd.Function):
    """Cannot be called at sizes that are no multiples of 8."""

    @staticmethod
    def forward(ctx, x):
        return x.view(x.shape[0], -1, 8).flip(2).flatten(1)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.view(gradient.shape[0], -1, 8).flip(2).flatten(1)


class Norm(torch.autograd.Function):
    """A layer norm over the channels of images, by hand."""

    @staticmethod
    def forward(ctx, x, weight, eps):
        mean = x.mean(1, keepdim=True)
        deviation = ((x - mean).pow(2).mean(1, keepdim=True) + eps).sqrt()
        y = (x - mean) / deviation
        ctx.save_for_backward(y, deviation, weight)
        return weight.view(1, -1, 1, 1) * y

    @staticmethod
    def backward(ctx, gradient):
        y, deviation, weight = ctx.saved_tensors
        g = gradient * weight.view(1, -1, 1, 1)
        inner = g - y * (g * y).mean(1, keepdim=True) - g.mean(1, keepdim=True)
        return inner / deviation, (gradient * y).sum((0, 2, 3)), None


class Weighted(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(24))

    def forward(self, x):
        return Norm.apply(x, self.weight, 1e-5)


def test_one_class_is_looked_at_once_however_often_it_is_called():
    def run(x):
        for _ in range(5):
            x = Swish.apply(x * 2)
        return x

    BACKWARDS.clear()
    dag = build_from_unstructured_module(model := Runs(run), torch.randn(2, 3, 64, 64))
    assert len(BACKWARDS) < 100
    assert max(max(shape) for shape in BACKWARDS) < 16
    x = torch.randn(2, 3, 32, 48)
    assert torch.equal(dag(x), model(x))


def test_static_arguments_are_looked_at_one_by_one():
    x = torch.randn(2, 6)
    dag = build_from_unstructured_module(model := Runs(lambda x: Scaled.apply(x, 2)), x)
    assert torch.equal(dag(x), model(x))
    with pytest.raises(TraceError, match="Scaled has a gradient of its own"):
        build_from_unstructured_module(Runs(lambda x: Scaled.apply(Scaled.apply(x, 2), 3)), x)


def test_gradients_that_differ_for_rare_numbers_are_found():
    with pytest.raises(TraceError, match="Clipped has a gradient of its own"):
        build_from_unstructured_module(Runs(Clipped.apply), torch.randn(2, 6))


def test_functions_that_need_their_own_sizes_are_looked_at_there():
    dag = build_from_unstructured_module(model := Runs(Halves.apply), torch.randn(2, 48))
    x = torch.randn(5, 48)
    assert torch.equal(dag(x), model(x))


def test_sizes_that_belong_together_stay_together():
    dag = build_from_unstructured_module(model := Weighted(), torch.randn(2, 24, 16, 16))
    x = torch.randn(3, 24, 8, 12)
    assert torch.equal(dag(x), model(x))


class Rounded(torch.autograd.Function):
    """Has the gradient of the identity, and no context in its forward."""

    @staticmethod
    def forward(x):
        return x.round()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return gradient


swish, clipped, rounded = Swish.apply, Clipped.apply, Rounded.apply


@pytest.mark.parametrize("function", [clipped, rounded])
def test_a_gradient_of_its_own_is_refused_under_another_name_too(function):
    with pytest.raises(TraceError, match="has a gradient of its own"):
        build_from_unstructured_module(Runs(function), torch.randn(2, 6))
    assert not {"forward", "setup_context"} & vars(type(Rounded)).keys()
    assert torch.equal(rounded(torch.tensor([1.2])), torch.tensor([1.0]))


class Named(nn.Module):
    """Calls a function under another name, with and without gradients."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        y = swish(self.first(x))
        with torch.no_grad():
            fixed = swish(self.second(y))
        return y + fixed


def test_gradients_flow_through_functions_under_another_name():
    model, x = Named(), torch.randn(3, 6)
    dag = build_from_unstructured_module(model, x)
    for net in (model, dag):
        net(x).sum().backward()
    ours, theirs = (dict(net.named_parameters()) for net in (dag, model))
    assert torch.equal(dag(x), model(x))
    torch.testing.assert_close(ours["first.weight"].grad, theirs["first.weight"].grad)
    assert ours["second.weight"].grad is None
