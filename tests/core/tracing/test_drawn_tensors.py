"""Random tensors filled in place draw what the model draws."""

from __future__ import annotations

import pytest
import torch
from torch import nn

DRAWS = {
    "uniform": lambda t: t.uniform_(),
    "between": lambda t: t.uniform_(-0.3, 0.5),
    "whole numbers": lambda t: t.uniform_(-1, 3),
    "normal": lambda t: t.normal_(),
    "mean and deviation": lambda t: t.normal_(2.0, 0.1),
    "by name": lambda t: t.normal_(mean=-1.0, std=3.0),
    "deviation alone": lambda t: t.normal_(std=0.02),
}


class Noisy(nn.Module):
    def __init__(self, draw, *, rows):
        super().__init__()
        self.draw, self.rows = draw, rows

    def forward(self, x):
        made = torch.empty(x.shape) if self.rows else torch.empty(4)
        return x + self.draw(made) if self.training else x * 2


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("name", DRAWS)
def test_noise_of_training_is_the_models_noise(name, rows, faithful):
    dag = faithful(Noisy(DRAWS[name], rows=rows), lambda n: torch.randn(n, 4), relative=1e-6)
    kinds = [type(vertex.module).__name__ for vertex in dag.inner_vertices]
    assert "Random" in kinds
    assert "Constant" not in kinds


class Jittered(nn.Module):
    """Compute a table from no input, shaken in training; in evaluation it is a constant."""

    def forward(self, x):
        grid = torch.stack(torch.meshgrid(torch.arange(2.0), torch.arange(2.0), indexing="ij"), -1).flatten(0, 1)
        if self.training:
            grid = grid * torch.empty(2).uniform_(-0.5, 0.5).exp()
        angles = torch.cat([grid.sin(), grid.cos()], -1)
        return x + angles.sum(-1)


def test_a_table_shaken_in_training_is_constant_in_evaluation(faithful):
    dag = faithful(Jittered(), lambda n: torch.randn(n, 4), relative=1e-6)
    assert "Random" in [type(vertex.module).__name__ for vertex in dag.inner_vertices]


class Wasteful(nn.Module):
    """Join tensors that only training reads, from other tensors in each mode."""

    def forward(self, x):
        first = x.exp() if self.training else x.neg()
        joined = torch.cat([first, x], -1)
        return joined.sum(-1) if self.training else x.mean(-1)


def test_a_call_that_one_mode_wastes_is_the_other_modes_alone(faithful):
    dag = faithful(Wasteful(), lambda n: torch.randn(n, 4))
    assert "Neg" not in [type(vertex.module).__name__ for vertex in dag.inner_vertices]
