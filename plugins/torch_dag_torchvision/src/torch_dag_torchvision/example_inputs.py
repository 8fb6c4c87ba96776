"""Example inputs of the size that a detector of torchvision resizes its images to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_PACKAGE = "torchvision.models.detection."


def example_inputs(model: nn.Module) -> tuple[Tensor, ...] | None:
    """Return two black images (2, 3, height, width) for a detector of torchvision; None for other models."""
    transform: Any = getattr(model, "transform", None)
    if transform is None or not type(model).__module__.startswith(_PACKAGE):
        return None
    width, height = transform.fixed_size or (transform.min_size[-1], transform.min_size[-1])
    return (torch.zeros(2, 3, height, width),)
