"""Randomising models for tests: parameters that are initialised to 0 or 1 hide mistakes."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def awaken(model: M, seed: int = 0) -> M:
    """Randomise scales, shifts and running statistics of a model in place, and add noise to all weights.

    Other buffers are constants of the model and stay as they are.

    Returns:
        The model.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        last = name.rpartition(".")[2]
        noise = torch.randn(tensor.shape, generator=generator)
        if last == "running_var":
            tensor.copy_(0.5 + noise.abs())
        elif last == "running_mean":
            tensor.copy_(0.3 * noise)
        elif isinstance(tensor, nn.Parameter) and tensor.dim() > 1:
            tensor.add_(0.5 * noise / tensor.shape[1:].numel() ** 0.5)
        elif isinstance(tensor, nn.Parameter):
            tensor.copy_(0.3 * noise + (last == "weight"))
    return model
