"""What all masked forms share: the op's own tensors, its masks, and sums weighted by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_pruning.axes import Axis
from torch_dag_pruning.masked_ops.mask import detached_state

MaskOf = Callable[[Axis], Tensor | None]
"""Returns the mask of an axis, one value for each of its slots; None where every slot of it stays."""


class Masked(nn.Module):
    """Base of masked forms.

    The parameters and buffers are those of the op, under the same names. Masks are buffers that state dicts leave
    out. `update_masks` replaces them, for instance before every training step, and gradients flow into them.

    Attributes:
        axes: What the statistics run over, in the order of the reduced dimensions.
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
        """Replace the masks by those that ``mask_of`` gives for the axes now."""
        device = next((tensor.device for tensor in (*self.parameters(), *self.buffers())), None)
        for place, axis in enumerate(self.axes):
            mask = mask_of(axis)
            setattr(self, f"mask{place}", mask if device is None or mask is None else mask.to(device))

    def mask(self, x: Tensor, dims: Sequence[int]) -> Tensor:
        """Return the product of the masks laid over ``dims``, to be broadcast against ``x``."""
        laid = x.new_ones(())
        for place, dim in enumerate(dims):
            vector: Tensor | None = getattr(self, f"mask{place}")
            if vector is not None:
                fitting = _fitted(vector.to(x), x.shape[dim])
                laid = laid * fitting.reshape([-1, *[1] * (x.dim() - 1 - dim)])
        return laid


def _fitted(mask: Tensor, size: int) -> Tensor:
    """Return the mask for another batch than the analysed one: the batch is the outermost factor of its axis."""
    if len(mask) == size:
        return mask
    return mask.repeat(-(-size // len(mask)))[:size]


def computed(x: Tensor) -> Tensor:
    """Return the tensor in the type that statistics are taken in: at least float32."""
    return x if x.dtype == torch.float64 else x.float()


def cleared(x: Tensor, mask: Tensor) -> Tensor:
    """Return ``mask * x``, with 0 where the mask is 0, whatever x is there."""
    return torch.where(mask > 0, mask * x, torch.zeros((), dtype=x.dtype, device=x.device))


def count(x: Tensor, mask: Tensor, dims: Sequence[int]) -> Tensor:
    """Return how many elements of ``x`` each reduction over ``dims`` sums, those of masked slots by their mask."""
    unmasked = math.prod([x.shape[dim] for dim in dims if not _covers(mask, dim - x.dim())])
    return (mask.sum() * unmasked).clamp_min(1e-6)


def _covers(mask: Tensor, place: int) -> bool:
    return mask.dim() >= -place and mask.shape[place] > 1


def weighted_mean(x: Tensor, mask: Tensor, dims: Sequence[int], *, keepdim: bool = True) -> Tensor:
    """Return ``sum(m x) / sum(m)`` over ``dims``."""
    return cleared(x, mask).sum(list(dims), keepdim=keepdim) / count(x, mask, dims)
