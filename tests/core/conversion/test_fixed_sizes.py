"""What a graph cannot make of free sizes fixes them, with a note that says why, and never ends the conversion."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import InputError, TraceError
from torch_dag_core.serialization import load


class Convolved(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.conv, self.norm, self.function = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), function

    def forward(self, x):
        return self.function(self.norm(self.conv(x)))


class ReducedAttention(nn.Module):
    """Attend to a map reduced by convolution, with a projection of the reduced length, which fixes that length."""

    def __init__(self):
        super().__init__()
        self.reduce, self.project = nn.Conv2d(4, 4, 4, stride=4), nn.Linear(64, 16)

    def forward(self, x):
        queries = x.flatten(2).transpose(1, 2)
        keys = self.project(self.reduce(x).flatten(2)).transpose(1, 2)
        return functional.scaled_dot_product_attention(queries, keys, keys)


def images(batch):
    return torch.randn(batch, 3, 32, 32)


def normed(x):
    positions = torch.tensor([[i, j] for i in range(x.shape[2]) for j in range(x.shape[3])])
    return x + positions.float().mean()


OF_IMAGES = {
    "a tensor of sizes": lambda x: x / torch.tensor([x.shape[2], x.shape[3]]).sum(),
    "a tensor of a shape": lambda x: x * torch.tensor(x.shape[2:]).prod(),
    "a new tensor of sizes": lambda x: x.mean((2, 3))[:, :2] * x.new_tensor([x.shape[2], x.shape[3]]),
    "an identity": lambda x: x @ torch.eye(x.shape[-1]),
    "a size as a tensor": lambda x: x * torch.as_tensor(x.shape[-1]),
    "a table of numpy": lambda x: x * torch.from_numpy(np.arange(x.shape[-1])).float(),
    "an index at the end": lambda x: x * torch.zeros(x.shape[-1]).index_fill(0, torch.tensor([x.shape[-1] - 1]), 1),
    "positions": normed,
    "a full tensor": lambda x: x + torch.full((1,), x.shape[-1]),
    "padding that grows": lambda x: functional.pad(x, (x.shape[-1] - 31,) * 4, mode="reflect"),
    "a product with a fixed length": lambda x: x @ torch.ones(32, 4),
    "reduced attention": ReducedAttention(),
}
OF_BOTH = ("a tensor of sizes", "a tensor of a shape", "a new tensor of sizes", "positions", "reduced attention")
"""Those that read the height too; the others leave it free."""


@pytest.mark.parametrize("name", OF_IMAGES)
def test_image_sizes_are_fixed_with_a_note(name, faithful, tmp_path):
    dag = faithful(Convolved(OF_IMAGES[name]), images, relative=1e-6)
    batch, _, height, width = dag.input_spec.tensors[0].shape
    assert (batch, height, width) == (None, 32 if name in OF_BOTH else None, 32)
    fixed = f"the {'image size' if name in OF_BOTH else 'width'} is fixed: "
    assert dag.input_spec.notes[0].startswith(fixed)
    dag.save(tmp_path / "dag.safetensors")
    x = images(3)
    for graph in (dag.eval(), load(tmp_path / "dag.safetensors").eval()):
        assert torch.equal(graph(x), dag(x))
        with pytest.raises(InputError, match=fixed):
            graph(torch.randn(2, 3, 40, 40))


def test_a_tensor_of_the_batch_size_fixes_it(faithful):
    dag = faithful(Convolved(lambda x: x * torch.tensor([x.shape[0]])), images, batches=(2,))
    assert dag.input_spec.tensors[0].shape == (2, 3, 32, 32)
    assert dag.input_spec.notes[-1].startswith("the batch size is fixed: 'tensor'")


def test_what_fails_at_every_size_is_still_an_error():
    with pytest.raises(TraceError, match=rf"takes a Python value .*{__file__}:\d+"):
        build_from_unstructured_module(Convolved(lambda x: x * x.sum().item()), images(2))
