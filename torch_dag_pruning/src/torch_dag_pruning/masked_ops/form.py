"""The base of all masked forms, and masked sums and means."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_pruning.axes import Axis
from torch_dag_pruning.masked_ops.mask import detached_state

MaskOf = Callable[[Axis], Tensor | None]
"""Returns the mask of an axis, a vector with one value per slot, or None if every slot is kept."""


class Masked(nn.Module):
    """Base of masked forms.

    It shares the parameters and buffers of the op under their names. The masks are buffers outside the state dict.
    `update_masks` replaces them, for instance before every training step, and gradients flow into the new ones.

    Attributes:
        axes: The axes that the statistics run over, in the order of the reduced dimensions.
    """

    def __init__(self, op: nn.Module, axes: Sequence[Axis], mask_of: MaskOf) -> None:
        super().__init__()
        self._parameters.update(op._parameters)
        self._buffers.update(op._buffers)
        self._non_persistent_buffers_set |= op._non_persistent_buffers_set
        self.axes = tuple(axes)
        for place in range(len(self.axes)):
            self.register_buffer(f"mask{place}", None, persistent=False)
        self.training = op.training
        self.update_masks(mask_of)

    def __getstate__(self) -> dict[str, Any]:
        return detached_state(self)

    def update_masks(self, mask_of: MaskOf) -> None:
        """Replace the masks by what ``mask_of`` returns for the axes now."""
        device = next((tensor.device for tensor in (*self.parameters(), *self.buffers())), None)
        for place, axis in enumerate(self.axes):
            mask = mask_of(axis)
            setattr(self, f"mask{place}", mask if device is None or mask is None else mask.to(device))

    def mask(self, x: Tensor, dims: Sequence[int]) -> Tensor:
        """Return the outer product of the masks of ``dims``, in a shape that broadcasts against ``x``."""
        laid = x.new_ones(())
        for place, dim in enumerate(dims):
            vector: Tensor | None = getattr(self, f"mask{place}")
            if vector is not None:
                fitting = _fitted(vector.to(x), x.shape[dim])
                laid = laid * fitting.reshape([-1, *[1] * (x.dim() - 1 - dim)])
        return laid


def _fitted(mask: Tensor, size: int) -> Tensor:
    """Return the mask for a batch size other than the analysed one.

    If a mask covers the batch, the batch is the outermost factor of its axis and all samples have the same mask. So the
    mask is repeated or truncated to ``size``.
    """
    if len(mask) == size:
        return mask
    return mask.repeat(-(-size // len(mask)))[:size]


def computed(x: Tensor) -> Tensor:
    """Return the tensor in the dtype in which statistics are computed: float64, or float32 for any other."""
    return x if x.dtype == torch.float64 else x.float()


def cleared(x: Tensor, mask: Tensor) -> Tensor:
    """Return ``mask * x``, and 0 where the mask is 0 even if ``x`` is NaN or infinite there."""
    return torch.where(mask > 0, mask * x, torch.zeros((), dtype=x.dtype, device=x.device))


def count(x: Tensor, mask: Tensor, dims: Sequence[int]) -> Tensor:
    """Return how many elements each reduction over ``dims`` counts: the sum of the mask times the unmasked sizes.

    The result is at least 1e-6, to be divided by.
    """
    unmasked = math.prod([x.shape[dim] for dim in dims if not _covers(mask, dim - x.dim())])
    return (mask.sum() * unmasked).clamp_min(1e-6)


def _covers(mask: Tensor, place: int) -> bool:
    return mask.dim() >= -place and mask.shape[place] > 1


def weighted_mean(x: Tensor, mask: Tensor, dims: Sequence[int], *, keepdim: bool = True) -> Tensor:
    """Return ``sum(m x) / sum(m)`` over ``dims`` (M3)."""
    return cleared(x, mask).sum(list(dims), keepdim=keepdim) / count(x, mask, dims)
