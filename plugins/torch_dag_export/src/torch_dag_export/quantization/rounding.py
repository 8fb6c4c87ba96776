"""Rounding of a weight to 8-bit integers with one scale for each channel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_LARGEST = 127


@dataclass(frozen=True)
class Rounded:
    """A weight as integers and scales.

    Attributes:
        integers: int8, of the shape of the weight, from -127 to 127.
        scales: In the dtype of the weight; size 1 in all dimensions but that of the channels.
        error: Norm of the rounding error, divided by the norm of the weight.
    """

    integers: Tensor
    scales: Tensor
    error: float

    @property
    def size(self) -> int:
        """Bytes of integers and scales."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (self.integers, self.scales))


def rounded(weight: Tensor, axis: int) -> Rounded:
    """Round a weight to integers, symmetrically around 0, with one scale for each index along ``axis``.

    The scale of a channel is its largest absolute element divided by 127, so the rounding error of an element is at
    most half of that scale. A channel of zeros has scale 1.
    """
    others = [dim for dim in range(weight.dim()) if dim != axis]
    exact = weight.detach().to(torch.promote_types(weight.dtype, torch.float32))
    scales = (exact.abs().amax(others, keepdim=True) / _LARGEST).to(weight.dtype)
    scales = torch.where(scales == 0, torch.ones_like(scales), scales)
    integers = torch.round(exact / scales).clamp(-_LARGEST, _LARGEST).to(torch.int8)
    difference = (integers.to(weight.dtype) * scales).to(exact.dtype) - exact
    norm = float(exact.norm())
    return Rounded(integers, scales, float(difference.norm()) / norm if norm else 0.0)


def is_finite(weight: Tensor) -> bool:
    """Tell whether a weight has neither infinities nor NaN."""
    return math.isfinite(float(weight.detach().abs().amax()))
