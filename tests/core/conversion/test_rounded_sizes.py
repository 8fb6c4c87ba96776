"""Sizes that come about by rounding: right at every size that a graph takes, and an error at the others."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import torch_dag_core as td
from torch_dag_core.conversion.example_inputs import STEPS


class Applied(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function, self.conv = function, nn.Conv2d(3, 4, 8, 8)

    def forward(self, x):
        return self.function(self, x)


def same_padding(kernel):
    def pad(model, x):
        sides = [(math.ceil(n / 2) - 1) * 2 + kernel - n for n in x.shape[2:]]
        return F.max_pool2d(F.pad(x, (0, max(sides[1], 0), 0, max(sides[0], 0))), kernel, 2)

    return pad


OF_BATCH = {
    "chunks": lambda m, x: torch.cat([x.chunk(2)[0] * 2, x.chunk(2)[1]]),
    "slice": lambda m, x: x[: x.shape[0] // 2] * 2,
    "narrow": lambda m, x: x.narrow(0, 0, x.shape[0] // 2) * 2,
    "third": lambda m, x: x[: len(x) // 3] * 2,
}
OF_SPACE = {
    "multiple": lambda m, x: m.conv(F.pad(x, (0, -x.shape[3] % 8, 0, -x.shape[2] % 8))),
    "same 3": same_padding(3),
    "same 5": same_padding(5),
}


def right_or_refused(model, example, others):
    """Count the inputs that the graph of a model takes, on each of which both agree."""
    dag = td.build_from_unstructured_module(model, example)
    assert torch.equal(dag(example), model(example))
    taken = 0
    for x in others:
        try:
            found = dag(x)
        except td.InputError:
            continue
        taken += 1
        expected = model(x)
        assert found.shape == expected.shape
        assert torch.equal(found, expected)
    return taken


@pytest.mark.parametrize("name", OF_BATCH)
def test_parts_of_the_batch(name):
    batches = [torch.randn(n, 3, 4, 4) for n in (1, 2, 3, 5, 7, 9, 12, 18, 24)]
    assert right_or_refused(Applied(OF_BATCH[name]), torch.randn(6, 3, 4, 4), batches) >= 3


@pytest.mark.parametrize("name", OF_SPACE)
@pytest.mark.parametrize("size", [(8, 8), (30, 41)])
def test_padding_that_depends_on_the_image_size(name, size):
    height, width = size
    others = [torch.randn(2, 3, height + a, width + b) for a in (0, 1, 2, 5, 8, 64) for b in (0, 1, 2, 3, 64, 128)]
    assert right_or_refused(Applied(OF_SPACE[name]), torch.randn(2, 3, *size), others) >= 1


class ByMode(nn.Module):
    def __init__(self, evaluation, training):
        super().__init__()
        self.functions = evaluation, training

    def forward(self, x):
        return self.functions[self.training](x)


@pytest.mark.parametrize(
    "functions",
    [
        (lambda x: x * 2, lambda x: x * 3),
        (lambda x: x.clamp(0, 1), lambda x: x.clamp(-1, 2)),
        (lambda x: x[:, :2].sum(1), lambda x: x[:, 1:4].sum(1)),
        (lambda x: x.roll((1, 2), (1, 2)), lambda x: x.roll((2, 0), (1, 2))),
    ],
    ids=["scalar", "limits", "slice", "parts"],
)
def test_constants_of_one_mode(functions, tmp_path):
    model, x = ByMode(*functions), torch.randn(2, 5, 6)
    dag = td.build_from_unstructured_module(model, x)
    dag.save(tmp_path / "graph.safetensors")
    for graph in (dag, td.load(tmp_path / "graph.safetensors")):
        for training in (False, True):
            assert torch.equal(graph.train(training)(x), model.train(training)(x))


class ScaledByMode(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        x = x * self.scale * (2 if self.training else self.scale)
        return (x * 2 if self.training else x) * self.scale


def test_a_number_in_one_mode_and_a_tensor_in_the_other():
    model, x = ScaledByMode(), torch.randn(2, 3)
    dag = td.build_from_unstructured_module(model, x)
    for training in (False, True):
        assert torch.equal(dag.train(training)(x), model.train(training)(x))


class EvenInTraining(nn.Module):
    def forward(self, x):
        assert not self.training or x.shape[0] % 2 == 0
        return x * 3 if self.training else x * 2


def test_a_batch_that_only_training_refuses():
    model, x = EvenInTraining(), torch.randn(6, 3)
    dag = td.build_from_unstructured_module(model, x)
    for training in (False, True):
        assert torch.equal(dag.train(training)(x), model.train(training)(x))


class Pyramid(nn.Module):
    """Halves an image so many times and back, which fits where its sizes are whole multiples of the stride."""

    def __init__(self, halvings):
        super().__init__()
        self.halvings = halvings

    def forward(self, x):
        small = x
        for _ in range(self.halvings):
            small = F.max_pool2d(small, 2)
        return x + F.interpolate(small, scale_factor=2**self.halvings)


@pytest.mark.parametrize("halvings", range(1, 8))
def test_images_that_must_be_multiples_of_a_stride(halvings):
    stride = 2**halvings
    others = [torch.randn(1, 3, stride * a, stride * b) for a in (1, 2, 3) for b in (1, 2, 4)]
    least = 9 if stride in STEPS else 1
    assert right_or_refused(Pyramid(halvings), torch.randn(2, 3, stride, stride), others) >= least


class Limited(nn.Module):
    """Takes few samples at once, and works on half of them."""

    def forward(self, x):
        assert x.shape[0] < 10
        return x[: x.shape[0] // 2] * 2


def test_a_part_of_a_batch_with_a_limit():
    batches = [torch.randn(n, 3) for n in range(1, 10)]
    assert right_or_refused(Limited(), torch.randn(4, 3), batches) == 9


def longer_side(model, x):
    return x.sum((2, 3), keepdim=True) + x.new_zeros(max(x.shape[2:]))


@pytest.mark.parametrize("size", [(8, 8), (8, 12), (12, 8)])
def test_the_longer_side(size):
    others = [torch.randn(2, 3, height, width) for height in (8, 10, 12, 16) for width in (8, 10, 12, 16)]
    assert right_or_refused(Applied(longer_side), torch.randn(2, 3, *size), others) >= 1
