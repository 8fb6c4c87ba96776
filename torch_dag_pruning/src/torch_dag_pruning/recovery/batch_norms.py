"""Running statistics of batch norms, set anew for what they read now."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torch_dag_pruning.recovery.walking import Parts

_LEAST_VARIANCE = 1e-12
"""Channels that vary less in the reference, relative to the running variance, keep their scale."""


_LARGEST_RATIO = 4.0
"""Between the variance that a batch norm was trained with and that of the data, at the median over channels."""


@torch.no_grad()
def describes(module: Any, read: Parts) -> bool:
    """Tell whether the running statistics of a batch norm are roughly those of what it reads.

    They are not in a network that was never trained, or where the data is of another kind: such a layer scales its
    operands by constants, and statistics of the data in their place would change the whole network.
    """
    _, variance = _moments(read)
    ratio = (variance / (module.running_var.to(torch.float64) + module.eps)).median()
    return bool(1 / _LARGEST_RATIO <= ratio <= _LARGEST_RATIO)


@torch.no_grad()
def match(module: Any, read: Parts, wanted: Parts) -> None:
    """Let the results of a batch norm have the means and variances that they would have of other operands.

    Where the operands are the same, nothing changes, however few they are.

    Args:
        module: With running statistics; its mean and variance are replaced.
        read: What it reads now, of shape (batch, channels, ...).
        wanted: What its results are to be like, of the same shape.
    """
    (mean, variance), (old_mean, old_variance) = _moments(read), _moments(wanted)
    before = module.running_var.to(torch.float64) + module.eps
    usable = (old_variance > _LEAST_VARIANCE * before) & (variance > _LEAST_VARIANCE * before)
    ratio = torch.where(usable, variance / torch.where(usable, old_variance, 1.0), 1.0)
    after = (before * ratio).clamp_min(module.eps)
    centre = old_mean - module.running_mean.to(torch.float64)
    module.running_mean.copy_(mean - centre * (after / before).sqrt())
    module.running_var.copy_(after - module.eps)


@torch.no_grad()
def estimate(module: Any, read: Parts) -> None:
    """Set the running statistics of a batch norm to those of what it reads, as training does (variance unbiased)."""
    mean, variance = _moments(read)
    count = sum(part.numel() for part in read) // mean.numel()
    module.running_mean.copy_(mean)
    module.running_var.copy_(variance * count / max(count - 1, 1))


def _moments(parts: Parts) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each channel, in double precision."""
    rows = [part.transpose(0, 1).flatten(1) for part in parts]
    count = sum(row.shape[1] for row in rows)
    mean = sum(row.sum(1, dtype=torch.float64) for row in rows) / count
    squares = sum((row - mean[:, None].to(row.dtype)).square().sum(1, dtype=torch.float64) for row in rows)
    shift = sum((row - mean[:, None].to(row.dtype)).sum(1, dtype=torch.float64) for row in rows) / count
    return mean, squares / count - shift.square()
