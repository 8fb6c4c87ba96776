from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv, self.bn, self.drop = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.Dropout(0.1)

    def forward(self, x):
        return torch.relu(self.drop(self.bn(self.conv(x))) + x)


class Net(nn.Module):
    """Convolutions, a residual, a lone parameter, a reshape that follows the batch, and two outputs in training."""

    def __init__(self):
        super().__init__()
        self.stem, self.block, self.fc = nn.Conv2d(3, 4, 3), Block(4), nn.Linear(4, 5)
        self.scale, self.aux = nn.Parameter(torch.ones(4, 1, 1)), nn.Linear(4, 2)

    def forward(self, x, y=None):
        x = self.block(self.stem(x)) * self.scale
        pooled = x.mean((2, 3)).reshape(x.shape[0], -1)
        return (self.fc(pooled), self.aux(pooled)) if self.training else self.fc(pooled)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def dag(model):
    return build_from_unstructured_module(model, torch.randn(2, 3, 8, 8))


@pytest.fixture
def images():
    torch.manual_seed(1)
    return torch.randn(3, 3, 8, 8)
