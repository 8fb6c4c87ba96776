"""NumPy arrays among the arguments of torch functions are constants of the graph, or follow sizes that are fixed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import InputError

PLACES = np.array([3, 0, 2])


class Applied(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.linear, self.function = nn.Linear(4, 4), function

    def forward(self, x):
        return self.function(self.linear(x))


def overwritten(x):
    x = x.clone()
    x[:, np.array([True, False, True, False])] = 0.0
    return x


FREE = {
    "an index": lambda x: x[:, PLACES],
    "an index among others": lambda x: x[None, ..., PLACES[1:]],
    "an index that is made anew": lambda x: x[:, np.array([0, 2])],
    "a mask that is written through": overwritten,
    "a tensor of an array": lambda x: x * torch.tensor(np.arange(4.0)),
    "a tensor of arrays": lambda x: x * torch.tensor([np.array([1.0, 2.0, 3.0, 4.0])]),
    "a tensor as long as the channels": lambda x: x + torch.tensor(np.arange(x.shape[1])),
    "a tensor of the array's memory": lambda x: x - torch.as_tensor(np.ones(4, dtype=np.float32))[None],
    "an operand of where": lambda x: torch.where(torch.tensor(PLACES > 1)[None, [0, 1, 2, 2]], x, 0.0),
}


@pytest.mark.parametrize("name", FREE)
def test_arrays_are_constants(name):
    model = Applied(FREE[name])
    dag = build_from_unstructured_module(model, torch.randn(2, 4))
    for batch in (1, 2, 5):
        x = torch.randn(batch, 4)
        assert torch.equal(dag(x), model(x))


@pytest.mark.parametrize(
    "function", [lambda x: x * torch.tensor(np.arange(4.0) * len(x)), lambda x: x[np.arange(x.shape[0])[::-1].copy()]]
)
def test_arrays_that_follow_a_size_fix_it(function):
    model = Applied(function)
    dag = build_from_unstructured_module(model, torch.randn(2, 4))
    x = torch.randn(2, 4)
    assert torch.equal(dag(x), model(x))
    with pytest.raises(InputError, match="the batch size is fixed"):
        dag(torch.randn(3, 4))
