"""A small network and random data for the examples."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import torch_dag_core as td
import torch_dag_pruning as tdp

SHAPE = (3, 8, 8)


def pruning(steps: int, *, keep_flops: float = 0.5, **settings: object) -> tdp.LearnedChannelPruning:
    """Return the pruning of a small network."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 5),
    )  # fmt: skip
    dag = td.build_from_unstructured_module(model, torch.randn(2, *SHAPE))
    return tdp.LearnedChannelPruning(dag, SHAPE, keep_flops, steps, **settings)


def data(samples: int = 64) -> TensorDataset:
    """Return random images with labels."""
    generator = torch.Generator().manual_seed(1)
    return TensorDataset(
        torch.randn(samples, *SHAPE, generator=generator), torch.randint(5, (samples,), generator=generator)
    )


def loader(samples: int = 64, batch: int = 8) -> DataLoader:
    """Return batches of random images with labels."""
    return DataLoader(data(samples), batch)
