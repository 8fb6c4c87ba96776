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


@pytest.mark.parametrize("kind", [Columns, Pixels])
def test_the_note_names_the_line_whose_calls_grow(kind):
    notes = build_from_unstructured_module(kind().eval(), torch.randn(2, 4, 2, 2)).input_spec.notes
    assert any("the image size is fixed: the number of calls grows with the input sizes" in note for note in notes)
    assert any("test_growing_calls.py:" in note for note in notes)


class Steps(nn.Module):
    """Call a recurrent cell once for each element of a sequence."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def forward(self, x):
        state = None
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
        return state


@pytest.mark.parametrize("kind", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
@pytest.mark.parametrize("bias", [True, False])
def test_recurrent_cells_that_are_called_for_each_step_fix_the_length(kind, bias):
    model = Steps(kind(3, 5, bias=bias)).eval()
    dag = build_from_unstructured_module(model, torch.randn(2, 7, 3))
    for batch in (1, 2, 5):
        x = torch.randn(batch, 7, 3)
        torch.testing.assert_close(dag(x), model(x), rtol=0, atol=0)
    with pytest.raises(InputError, match="length is fixed"):
        dag(torch.randn(2, 8, 3))


class Samples(nn.Module):
    """Compute each sample of the batch by itself."""

    def forward(self, x):
        return torch.stack([sample.sin() for sample in x])


def test_calls_that_grow_with_the_batch_fix_it():
    model = Samples().eval()
    dag = build_from_unstructured_module(model, torch.randn(300, 4))
    assert torch.equal(dag(x := torch.randn(300, 4)), model(x))
    with pytest.raises(InputError, match="batch size is fixed"):
        dag(torch.randn(2, 4))
