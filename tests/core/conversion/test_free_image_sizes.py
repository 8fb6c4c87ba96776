"""Sizes that follow the image, where rounding and coincidence could bind them to the wrong thing."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module

ODD_SIZES = [(224, 224), (171, 205), (205, 171), (250, 230), (64, 320)]


class Tokens(nn.Module):
    """Go from an image to tokens and back, as hybrid transformers do at every stage."""

    def __init__(self, stages, stride):
        super().__init__()
        self.stages = nn.ModuleList(nn.Conv2d(3, 3, 3, stride=stride, padding=1) for _ in range(stages))
        self.mix = nn.Linear(3, 3)

    def forward(self, x):
        for stage in self.stages:
            x = stage(x)
            batch, channels, height, width = x.shape
            tokens = self.mix(x.flatten(2).transpose(1, 2))
            x = tokens.transpose(1, 2).reshape(batch, channels, height, width)
        return x.flatten(1)


class Reduced(nn.Module):
    """Attend to a coarser image, as pyramid transformers do."""

    def __init__(self):
        super().__init__()
        self.coarse = nn.Conv2d(3, 3, 7, stride=7)
        self.stem = nn.Conv2d(3, 3, 4, stride=4)

    def forward(self, x):
        x = self.stem(x)
        batch, channels, height, width = x.shape
        tokens = x.reshape(batch, channels, -1).permute(0, 2, 1)
        image = tokens.permute(0, 2, 1).reshape(batch, channels, height, width)
        keys = self.coarse(image).reshape(batch, channels, -1)
        return (tokens @ keys).softmax(-1).mean(-1)


class Pooled(nn.Module):
    """Shuffle a few last rows and columns: at the example's size there are about as many as samples."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Conv2d(3, 3, 3, stride=2, padding=1) for _ in range(6)))

    def forward(self, x):
        x = self.layers(x)
        batch, channels, height, width = x.shape
        return x.reshape(batch, channels, height * width).transpose(1, 2).reshape(batch, height, width, channels)


MODELS = {
    "a stage": lambda: Tokens(1, 4), "four stages": lambda: Tokens(4, 2), "six stages": lambda: Tokens(6, 2),
    "a coarser image": Reduced, "few pixels": Pooled,
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("example", [(224, 224), (256, 256), (224, 192)])
def test_sizes_are_the_models_own_at_every_image_size(name, example):
    model = MODELS[name]().eval()
    dag = build_from_unstructured_module(model, torch.zeros(2, 3, *example))
    assert dag.input_spec.tensors[0].shape == (None, 3, None, None)
    for batch in (1, 2, 3, 7):
        for size in ODD_SIZES:
            image = torch.randn(batch, 3, *size)
            with torch.no_grad():
                torch.testing.assert_close(dag(image), model(image), rtol=0, atol=0)


class Cached(nn.Module):
    """Keep a table for the last image size in a buffer, as some position encodings do."""

    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.zeros(1), persistent=False)

    def forward(self, x):
        if self.table.shape[0] != x.shape[1]:
            self.table = torch.arange(x.shape[1], dtype=x.dtype)
        return x + self.table


@pytest.mark.parametrize("runs_before", [False, True])
def test_a_table_kept_for_the_last_size_is_a_constant(runs_before):
    model = Cached()
    tokens = torch.randn(3, 5)
    if runs_before:
        model(tokens)
    kept = model.table
    dag = build_from_unstructured_module(model, tokens)
    assert model.table is kept
    torch.testing.assert_close(dag(tokens), model(tokens), rtol=0, atol=0)
    assert dag.state_dict().keys() == model.state_dict().keys()


class Windows(nn.Module):
    """Takes images apart into windows, and asks for whole windows of the features that it makes of them."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 4, stride=32)

    def forward(self, x):
        x = self.stem(x)
        height, width = x.shape[2:]
        assert height % 8 == 0
        assert width % 8 == 0
        return x.reshape(x.shape[0], 4, height // 8, 8, width // 8, 8).amax((3, 5))


def test_height_and_width_are_told_apart_where_steps_are_large():
    model = Windows().eval()
    dag = build_from_unstructured_module(model, torch.randn(1, 3, 256, 256))
    assert dag.input_spec.tensors[0].shape == (None, 3, None, None)
    for height, width in ((256, 512), (768, 256)):
        x = torch.randn(2, 3, height, width)
        torch.testing.assert_close(dag(x), model(x), rtol=0, atol=0)
