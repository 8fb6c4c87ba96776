"""What a model of Acme is made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary


class OutlierClip(nn.Module):
    """Scale features and clip them, but only where there is something to clip: a branch on data."""

    def __init__(self, width: int, limit: float = 2.0) -> None:
        super().__init__()
        self.width, self.limit = width, limit
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return the clipped and scaled features of x (..., width)."""
        if bool((x.abs() > self.limit).any()):
            x = x.clamp(-self.limit, self.limit)
        return x * self.scale


class AlwaysClip(nn.Module):
    """What `OutlierClip` computes, without a branch."""

    def __init__(self, clip: OutlierClip) -> None:
        super().__init__()
        self.limit, self.scale = clip.limit, clip.scale

    def forward(self, x: Tensor) -> Tensor:
        """Clip and scale."""
        return x.clamp(-self.limit, self.limit) * self.scale


def snake(x: Tensor, frequency: float = 1.0) -> Tensor:
    """Return ``x + sin(f x)^2 / f`` (arXiv:2006.08195); torch's function modes see the call as one."""
    if has_torch_function_unary(x):
        result: Tensor = handle_torch_function(snake, (x,), x, frequency=frequency)
        return result
    return x + torch.sin(frequency * x) ** 2 / frequency


class AcmeNet(nn.Module):
    """A small network with all of the above."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Linear(6, width)
        self.clip = OutlierClip(width)
        self.last = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Any:
        """Return three scores for x (batch, 6)."""
        return self.last(snake(self.clip(self.first(x)), frequency=2.0))
