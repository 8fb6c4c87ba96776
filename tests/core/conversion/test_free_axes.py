"""Sizes that are free one by one: width or height, depth, lengths of sequences and numbers of tokens."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from torch_dag_core.errors import InputError
from torch_dag_core.serialization import load


class RowWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.rows = nn.Conv2d(3, 4, 3, padding=1), nn.Parameter(torch.randn(4, 32, 1))

    def forward(self, x):
        return self.conv(x) * self.rows


class ColumnProjection(RowWeights):
    def forward(self, x):
        return functional.linear(self.conv(x), self.rows.reshape(4, 32)).mean(2)


class LineReader(nn.Module):
    """Read a line of text from an image of fixed height, as a convolutional recurrent network does."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4)
        self.read, self.out = nn.GRU(64, 6, batch_first=True, bidirectional=True), nn.Linear(12, 5)

    def forward(self, x):
        x = self.norm(self.conv(x)).relu()
        batch, channels, height, width = x.shape
        return self.out(self.read(x.permute(0, 3, 1, 2).reshape(batch, width, channels * height))[0])


class Sound(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv1d(2, 4, 5, stride=2), nn.ConvTranspose1d(4, 2, 5, stride=2)

    def forward(self, x):
        return self.up(self.down(x).relu())[..., : x.shape[-1] - 1]


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.out = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.layer(x))


class Language(Encoder):
    def __init__(self):
        super().__init__()
        self.embed, self.positions = nn.Embedding(10, 8), nn.Parameter(torch.randn(512, 8))

    def forward(self, tokens):
        return super().forward(self.embed(tokens) + self.positions[: tokens.shape[1]])


class Video(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv3d(3, 4, 3, stride=2, padding=1), nn.BatchNorm3d(4)

    def forward(self, x):
        return self.norm(self.conv(x)).mean(2)


class FlatFrames(Video):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(64, 3)

    def forward(self, x):
        return self.out(self.norm(self.conv(x)).flatten(3)).mean(2)


def floats(*shape):
    return lambda batch: torch.randn(batch, *shape)


def tokens(length):
    return lambda batch: torch.randint(0, 10, (batch, length))


CASES = {
    "width": (RowWeights(), floats(3, 32, 48), (None, 3, 32, None), [floats(3, 32, 50)], floats(3, 30, 48), "height"),
    "height": (
        ColumnProjection(), floats(3, 40, 32), (None, 3, None, 32), [floats(3, 51, 32)], floats(3, 40, 33), "width",
    ),
    "width of a line": (
        LineReader(), floats(3, 32, 64), (None, 3, 32, None), [floats(3, 32, 71)], floats(3, 40, 64), "height",
    ),
    "sound": (Sound(), floats(2, 64), (None, 2, None), [floats(2, 71), floats(2, 300)], floats(3, 64), None),
    "sequence": (Encoder(), floats(16, 8), (None, None, 8), [floats(21, 8), floats(1, 8)], floats(16, 9), None),
    "tokens": (Language(), tokens(16), (None, None), [tokens(21), tokens(500)], None, None),
    "video": (Video(), floats(3, 8, 16, 16), (None, 3, None, None, None), [floats(3, 5, 20, 23)], None, None),
    "depth": (
        FlatFrames(), floats(3, 8, 16, 16), (None, 3, None, 16, 16), [floats(3, 5, 16, 16)], floats(3, 8, 17, 16),
        "image size",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_the_model_leaves_free_is_free(name, faithful, tmp_path):
    model, make, shape, others, refused, fixed = CASES[name]
    dag = faithful(model, make, relative=1e-5)
    assert dag.input_spec.tensors[0].shape == shape
    dag.save(tmp_path / "dag.safetensors")
    model.eval()
    for graph in (dag.eval(), load(tmp_path / "dag.safetensors").eval()):
        for other in others:
            x = other(3)
            torch.testing.assert_close(graph(x), model(x))
        if refused is not None:
            with pytest.raises(InputError, match=rf"the {fixed} is fixed: " if fixed else "the graph takes"):
                graph(refused(2))


def test_a_fixed_number_of_tokens_is_noted(faithful):
    class Fixed(Language):
        def forward(self, tokens):
            return Encoder.forward(self, self.embed(tokens) + self.positions[:16])

    dag = faithful(Fixed(), tokens(16), relative=1e-5)
    assert dag.input_spec.tensors[0].shape == (None, 16)
    assert dag.input_spec.notes[0].startswith("the number of tokens is fixed: ")


class Windows(nn.Module):
    """Partition a map into windows, as window attention does."""

    def __init__(self, window, stride):
        super().__init__()
        self.embed, self.mix = nn.Conv2d(3, 4, stride, stride=stride), nn.Linear(window**2, window**2)
        self.window = window

    def forward(self, x):
        x, size = self.embed(x), self.window
        batch, channels, height, width = x.shape
        if height % size or width % size:
            raise ValueError("the map has to be a multiple of the window")
        rows, columns = height // size, width // size
        x = x.reshape(batch, channels, rows, size, columns, size).permute(0, 1, 2, 4, 3, 5)
        x = self.mix(x.reshape(batch, channels, rows, columns, size**2))
        x = x.reshape(batch, channels, rows, columns, size, size).permute(0, 1, 2, 4, 3, 5)
        return x.reshape(batch, channels, height, width)


class Halves(nn.Module):
    """Split a sound into even and odd samples, which its length has to allow."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3, padding=1)

    def forward(self, x):
        if x.shape[-1] % 2:
            raise ValueError("the length has to be even")
        return self.conv(x.reshape(x.shape[0], 2, x.shape[-1] // 2, 2).transpose(2, 3).flatten(1, 2))


STEPPED = {
    "windows of 7 of a quarter": (Windows(7, 4), floats(3, 56, 56), floats(3, 84, 28), floats(3, 60, 56), 28),
    "windows of 5": (Windows(5, 1), floats(3, 10, 20), floats(3, 15, 15), floats(3, 12, 20), 5),
    "even lengths": (Halves(), floats(2, 16), floats(2, 22), floats(2, 21), 2),
}


@pytest.mark.parametrize("name", STEPPED)
def test_the_step_of_sizes_is_the_models_own(name, faithful, tmp_path):
    model, make, other, refused, step = STEPPED[name]
    dag = faithful(model, make, relative=1e-5)
    assert any(f"% {step})" in str(assumption) for assumption in dag.input_spec.assumptions)
    dag.save(tmp_path / "dag.safetensors")
    x = other(3)
    for graph in (dag.eval(), load(tmp_path / "dag.safetensors").eval()):
        torch.testing.assert_close(graph(x), model.eval()(x))
        with pytest.raises(InputError, match=r"the graph holds only where .*%"):
            graph(refused(2))
