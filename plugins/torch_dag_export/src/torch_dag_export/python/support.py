"""Functions and classes whose source is copied into exported files that use them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Group(nn.Module):
    """Modules and tensors whose names begin alike; ``group[0]`` is the one that is called "0"."""

    def __getitem__(self, name: Any) -> Any:
        return getattr(self, str(name))


def check_shape(name: str, tensor: Tensor, sizes: tuple[Any, ...]) -> None:
    """Raise ValueError for a tensor that the model does not take; None stands for any size."""
    same = [size is None or size == given for size, given in zip(sizes, tensor.shape, strict=False)]
    if tensor.dim() != len(sizes) or not all(same):
        message = f"{name} has shape {tuple(tensor.shape)}, the model takes {sizes}"
        raise ValueError(message)


def check_constant(name: str, given: Any, expected: Any) -> None:
    """Raise ValueError for an argument that the model does not follow."""
    if given is not expected and given != expected:
        message = f"{name} is {given!r}, but this model was made with {expected!r}"
        raise ValueError(message)


def overwritten(state: Tensor, value: Tensor) -> Tensor:
    """Write a value into a buffer and return a copy of it."""
    with torch.no_grad():
        state.copy_(value)
    return state.clone()
