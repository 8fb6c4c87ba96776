"""Tensors that the model makes itself."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from torch_dag_core.graph.builtin_ops import Constant
from torch_dag_core.ops.creation import Arange, Full


def rows(batch):
    return torch.randn(batch, 6)


def images(batch):
    return torch.randn(batch, 3, 16, 12)


def has(dag, op):
    return any(isinstance(vertex.module, op) for vertex in dag.inner_vertices)


def test_zeros_of_the_batch_size(faithful):
    dag = faithful(lambda x: torch.cat([x, torch.zeros(x.shape[0], 2)], 1), rows)
    assert has(dag, Full)


def test_new_and_like_tensors(faithful):
    def run(x):
        made = x.new_zeros(x.shape) + torch.ones_like(x) + x.new_full((x.size(0), 1), 0.5) + torch.full_like(x, 2.0)
        return x * made + x.new_ones(6) + x.new_tensor([1.0] * 6) + torch.empty_like(x).fill_(3.0)

    faithful(run, rows)


def test_a_range_over_the_batch(faithful):
    def run(x):
        index = torch.arange(x.shape[0])
        return x[index] * index[:, None] + torch.arange(0, x.shape[0] * 2, 2)[:, None]

    dag = faithful(run, rows)
    assert has(dag, Arange)


def test_a_range_of_a_fixed_size_is_a_constant(faithful):
    dag = faithful(lambda x: x + torch.arange(x.shape[1]), rows)
    assert has(dag, Constant)
    assert not has(dag, Arange)


def test_coordinates_of_an_image(faithful):
    class Coordinates(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(5, 4, 3)

        def forward(self, x):
            batch, _, height, width = x.shape
            y, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            grid = torch.stack([y, xs]).float().expand(batch, 2, height, width)
            return self.conv(torch.cat([x, grid], 1))

    model = Coordinates()
    dag = faithful(model, images)
    x = torch.randn(2, 3, 9, 21)
    assert torch.equal(dag(x), model(x))


def test_normalised_coordinates(faithful):
    class Grid(nn.Module):
        def forward(self, x):
            row = torch.linspace(-1, 1, x.shape[3]).view(1, 1, 1, -1).expand(x.shape[0], 1, x.shape[2], -1)
            return torch.cat([x, row], 1)

    model = Grid()
    dag = faithful(model, images)
    x = torch.randn(2, 3, 9, 21)
    assert torch.equal(dag(x), model(x))


def test_rotary_positions(faithful):
    class Rotary(nn.Module):
        def __init__(self, width=8):
            super().__init__()
            self.width = width
            self.q = nn.Linear(width, width)

        def table(self, length):
            rates = 1.0 / 10000 ** (torch.arange(0, self.width, 2).float() / self.width)
            angles = torch.outer(torch.arange(length).float(), rates)
            return angles.cos(), angles.sin()

        def forward(self, x):
            cos, sin = self.table(x.shape[1])
            q = self.q(x)
            even, odd = q[..., 0::2], q[..., 1::2]
            return torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1).flatten(2)

    dag = faithful(Rotary(), lambda b: torch.randn(b, 5, 8))
    assert has(dag, Constant)


def test_a_table_kept_between_calls(faithful):
    class Cached(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.cache = nn.Linear(6, 6), {}

        def forward(self, x):
            if x.shape[1] not in self.cache:
                self.cache[x.shape[1]] = torch.arange(x.shape[1]).float()
            return self.fc(x) * self.cache[x.shape[1]]

    model = Cached()
    faithful(model, rows)
    assert model.cache.keys() == {6}
    assert not model.cache[6].is_meta


def test_a_causal_mask(faithful):
    def run(x):
        scores = x.unsqueeze(1) * x.unsqueeze(2)
        mask = torch.triu(torch.ones(6, 6, dtype=torch.bool), diagonal=1)
        return scores.masked_fill(mask, float("-inf")).softmax(-1)

    faithful(run, rows)


def test_random_tensors_are_drawn_anew(faithful):
    dag = faithful(lambda x: x + torch.randn_like(x) * torch.rand(x.shape[0], 1), rows)
    x = rows(3)
    assert not torch.equal(dag(x), dag(x))


def test_noise_in_training_only(faithful):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(6, 6)

        def forward(self, x):
            x = self.fc(x)
            return x + torch.randn_like(x) if self.training else x

    faithful(Noisy(), rows)


def test_resizing_to_another_tensor(faithful):
    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.down, self.lateral = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(3, 4, 1)

        def forward(self, x):
            small = self.down(x)
            up = functional.interpolate(small, size=x.shape[-2:], mode="bilinear", align_corners=False)
            return self.lateral(x) + up, functional.interpolate(small, scale_factor=2.0)

    model = Pyramid()
    dag = faithful(model, images)
    for size in ((16, 12), (17, 13), (5, 31)):
        x = torch.randn(2, 3, *size)
        for ours, theirs in zip(dag(x), model(x), strict=True):
            assert torch.equal(ours, theirs)


def test_half_of_an_odd_size_is_right_or_refused():
    from torch_dag_core.conversion.convert import build_from_unstructured_module
    from torch_dag_core.errors import InputError

    class Halved(nn.Module):
        def forward(self, x):
            return functional.adaptive_avg_pool2d(x, 1) + x[:, :, : math.ceil(x.shape[2] / 2)].sum((2, 3), keepdim=True)

    model = Halved()
    dag = build_from_unstructured_module(model, torch.randn(2, 3, 16, 16))
    for size in (16, 17, 31, 48, 50):
        x = torch.randn(2, 3, size, size)
        try:
            result = dag(x)
        except InputError:
            continue
        assert torch.equal(result, model(x))
