"""Random inputs of given sizes, to run a graph on when there is no data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def random_input(shape: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """Return normally distributed numbers; where the type is an integer, positions 0 and 1, which every table has."""
    if dtype.is_floating_point:
        return torch.randn(tuple(shape), dtype=dtype, device=device)
    return torch.randint(0, 2, tuple(shape), device=device).to(dtype)
