"""Masked forms of normalisations: their statistics run over the kept slots (O6, M3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from torch_dag_pruning.axes import Axis
from torch_dag_pruning.masked_ops.form import Masked, MaskOf, cleared, computed, count, weighted_mean
from torch_dag_pruning.masked_ops.reductions import cleared_difference


class MaskedNorm(Masked):
    """Base of masked normalisations; scale and shift are parameters of the op, or operands."""

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, op: Any, axes: Sequence[Axis], mask_of: MaskOf) -> None:
        super().__init__(op, axes, mask_of)
        self.eps: float | None = op.eps

    def affine(self, operands: Sequence[Tensor]) -> tuple[Tensor | None, Tensor | None]:
        """Return scale and shift, each None if there is none."""
        own = (self._parameters.get("weight"), self._parameters.get("bias"))
        given = (*operands, None, None)
        return (given[0], given[1]) if operands else own


def standardized(x: Tensor, mask: Tensor, dims: Sequence[int], eps: float) -> Tensor:
    """Return ``(x - mean) / sqrt(var + eps)`` with the mean and variance of the kept slots over ``dims``.

    Slots with mask 0 get a finite value that nothing depends on.
    """
    total = count(x, mask, dims)
    # Dropped slots may hold NaN. As zeros they stay finite, so a weight of 0 is enough to leave them out.
    alive = torch.where(mask > 0, x, torch.zeros((), dtype=x.dtype, device=x.device))
    centred = alive - (mask * alive).sum(list(dims), keepdim=True) / total
    variance = (mask * centred.square()).sum(list(dims), keepdim=True) / total
    return centred * (variance + eps).rsqrt()


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None and bias is not None:
        return torch.addcmul(bias, x, weight)
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


class MaskedLayerNorm(MaskedNorm):
    """Layer normalisation over the last dimensions."""

    def forward(self, x: Tensor, *affine: Tensor) -> Tensor:
        """Normalise ``x``, then scale and shift it."""
        wide = computed(x)
        dims = range(x.dim() - len(self.axes), x.dim())
        normal = standardized(wide, self.mask(wide, dims), dims, self.eps or 0.0)
        return _scaled(normal, *self.affine(affine)).to(x.dtype)


class MaskedRMSNorm(MaskedNorm):
    """Root mean square normalisation over the last dimensions."""

    def forward(self, x: Tensor, *affine: Tensor) -> Tensor:
        """Normalise ``x``, then scale it."""
        wide = computed(x)
        dims = range(x.dim() - len(self.axes), x.dim())
        mask = self.mask(wide, dims)
        squares = torch.where(mask > 0, wide, torch.zeros((), dtype=wide.dtype, device=x.device)).square()
        eps = torch.finfo(x.dtype).eps if self.eps is None else self.eps
        normal = wide * (weighted_mean(squares, mask, dims) + eps).rsqrt()
        return _scaled(normal, self.affine(affine)[0], None).to(x.dtype)


class MaskedGroupNorm(MaskedNorm):
    """Group normalisation; the channels of a group have a mask, which is the same in all groups."""

    def __init__(self, op: Any, axes: Sequence[Axis], mask_of: MaskOf) -> None:
        super().__init__(op, axes, mask_of)
        self.num_groups: int = op.num_groups

    def forward(self, x: Tensor, *affine: Tensor) -> Tensor:
        """Normalise each group, then scale and shift each channel."""
        wide = computed(x).reshape(len(x), self.num_groups, -1, *x.shape[2:])
        dims = range(2, wide.dim())
        mask = self.mask(wide, dims)
        normal = standardized(wide, mask, dims, self.eps or 0.0).flatten(1, 2)
        return _scaled(normal, *_per_channel(self.affine(affine), x.dim())).to(x.dtype)


def _per_channel(affine: Sequence[Tensor | None], rank: int) -> list[Tensor | None]:
    return [None if tensor is None else tensor.reshape([-1, *[1] * (rank - 2)]) for tensor in affine]


class MaskedBatchNorm(MaskedNorm):
    """Batch normalisation where the batch or spatial axes hold slots that may be removed."""

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, op: Any, axes: Sequence[Axis], mask_of: MaskOf) -> None:
        super().__init__(op, axes, mask_of)
        self.momentum: float | None = getattr(op, "momentum", 0.0)
        self.is_tracking = "running_mean" in op._buffers and op._buffers["running_mean"] is not None
        self.always_batch = not self.is_tracking

    def forward(self, x: Tensor, *affine: Tensor) -> Tensor:
        """Normalise by the statistics of the batch in training mode, by the running statistics in evaluation mode.

        Without running statistics, those of the batch are used in both modes.
        """
        weight, bias = self.affine(affine)
        if not (self.training or self.always_batch):
            return functional.batch_norm(x, self.running_mean, self.running_var, weight, bias, eps=self.eps or 0.0)
        wide = computed(x)
        dims = [0, *range(2, x.dim())]
        mask = self.mask(wide, dims)
        if self.training and self.is_tracking:
            self._track(wide.detach(), mask.detach(), dims)
        normal = standardized(wide, mask, dims, self.eps or 0.0)
        return _scaled(normal, *_per_channel((weight, bias), x.dim())).to(x.dtype)

    @torch.no_grad()
    def _track(self, x: Tensor, mask: Tensor, dims: Sequence[int]) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        mean = weighted_mean(x, mask, dims)
        squares = cleared(cleared_difference(x, mean, mask).square(), mask).sum(list(dims))
        variance = squares / (count(x, mask, dims) - 1).clamp_min(1e-6)
        self.running_mean.lerp_(mean.flatten().to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)


class MaskedNormalize(Masked):
    """Division by the p-norm of the kept slots."""

    def __init__(self, op: Any, dims: Sequence[int], axes: Sequence[Axis], mask_of: MaskOf) -> None:
        super().__init__(op, axes, mask_of)
        self.dims, self.p, self.eps = list(dims), float(op.p), float(op.eps)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x / max(norm(m x), eps)``."""
        alive = cleared(x, self.mask(x, self.dims))
        norm: Tensor = torch.linalg.vector_norm(alive, self.p, self.dims, keepdim=True)
        return x / norm.clamp_min(self.eps)
