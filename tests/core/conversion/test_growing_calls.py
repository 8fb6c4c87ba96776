"""Models that make more calls at larger inputs: conversion ends, and fixes the sizes that the calls grow with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import InputError


class Columns(nn.Module):
    """Stack the columns of a flattened image one by one."""

    def forward(self, x):
        y = x.flatten(1)
        return torch.stack([y[:, i] for i in range(y.shape[1])], 1)


class Pixels(nn.Module):
    """Add up the pixels in two nested loops."""

    def forward(self, x):
        total = x[:, :, 0, 0] * 0
        for row in range(x.shape[2]):
            for column in range(x.shape[3]):
                total = total + x[:, :, row, column] * (row - column)
        return total


class Rows(nn.Module):
    """Treat each row of an image by a layer of its own call."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 3)

    def forward(self, x):
        return torch.cat([self.fc(row) for row in x.flatten(1, 2).unbind(1)], 1)


@pytest.mark.parametrize("kind", [Columns, Pixels, Rows])
def test_calls_that_grow_with_the_image_fix_its_size(kind):
    model = kind().eval()
    dag = build_from_unstructured_module(model, torch.randn(2, 4, 2, 2))
    for batch in (1, 2, 5):
        x = torch.randn(batch, 4, 2, 2)
        assert torch.equal(dag(x), model(x))
    with pytest.raises(InputError, match="size is fixed"):
        dag(torch.randn(2, 4, 3, 3))
