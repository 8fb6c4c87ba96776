"""Recurrent layers are traced without being run: their shapes follow from those of the state."""

from __future__ import annotations

import pytest
import torch
from torch import nn

VARIANTS = {
    "plain": {},
    "two layers": {"num_layers": 2, "dropout": 0.3},
    "both directions": {"bidirectional": True},
    "batch first": {"batch_first": True, "bidirectional": True, "num_layers": 2},
    "no bias": {"bias": False},
}


class Whole(nn.Module):
    """Return the output and the last state."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        output, state = self.layer(x if self.layer.batch_first else x.transpose(0, 1))
        return output * 2, state


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("variant", VARIANTS)
def test_output_and_state_equal_the_models(kind, variant, faithful):
    faithful(Whole(kind(5, 7, **VARIANTS[variant])), lambda n: torch.randn(n, 3, 5))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")
def test_a_projected_state_is_narrower(faithful):
    faithful(Whole(nn.LSTM(5, 7, proj_size=4, bidirectional=True)), lambda n: torch.randn(n, 3, 5))


def test_relu_networks_too(faithful):
    faithful(Whole(nn.RNN(5, 7, nonlinearity="relu")), lambda n: torch.randn(n, 3, 5))
