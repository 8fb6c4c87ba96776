"""An index that takes everything is nothing, and a write over everything is what is written."""

from __future__ import annotations

import pytest
import torch
from torch import nn


class Apply(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x + 1)


def written(items, value):
    def function(x):
        result = x * 2
        result[items] = value(x)
        return result + x

    return function


WHOLE = [..., slice(None), slice(0, None), (slice(None), slice(0, None, 1)), (..., slice(None))]
PARTS = [slice(1, None), slice(None, 1), (slice(None), slice(None, None, 2)), (..., 0), (slice(None), slice(0, 2))]


def kinds(dag):
    return {type(vertex.module).__name__ for vertex in dag.inner_vertices}


@pytest.mark.parametrize("items", WHOLE)
def test_everything_is_the_tensor_itself(items, faithful):
    assert kinds(faithful(Apply(lambda x: x[items] * 3), lambda n: torch.randn(n, 4))) == {"Add", "Mul"}
    assert kinds(faithful(Apply(written(items, lambda x: x - 5)), lambda n: torch.randn(n, 4))) == {"Add", "Sub"}


@pytest.mark.parametrize("items", PARTS)
def test_a_part_is_a_part(items, faithful):
    assert "Index" in kinds(faithful(Apply(lambda x: x[items] * 3), lambda n: torch.randn(n, 4), batches=(2, 5)))
    assert "SetIndex" in kinds(faithful(Apply(written(items, lambda x: x[items] - 5)), lambda n: torch.randn(n, 4)))


@pytest.mark.parametrize("value", [lambda x: x[:1] - 5, lambda x: (x > 0).int(), lambda _: 2.0])
def test_a_value_of_another_shape_or_type_is_still_written(value, faithful):
    assert "SetIndex" in kinds(faithful(Apply(written(..., value)), lambda n: torch.randn(n, 4)))


FUSED = {
    "product": (lambda x: torch.addcmul(x, x.exp(), x.tanh()), {"Add", "Mul", "Exp", "Tanh"}),
    "scaled product": (lambda x: torch.addcmul(x, x.exp(), x, value=0.5), {"Add", "Mul", "Exp"}),
    "quotient": (lambda x: torch.addcdiv(x, x, x.exp(), value=-2), {"Add", "Mul", "Div", "Exp"}),
    "method": (lambda x: x.addcmul(x, x), {"Add", "Mul"}),
}


@pytest.mark.parametrize("name", FUSED)
def test_fused_sums_are_sums(name, faithful):
    function, expected = FUSED[name]
    assert kinds(faithful(Apply(function), lambda n: torch.randn(n, 4), relative=1e-6)) == expected
