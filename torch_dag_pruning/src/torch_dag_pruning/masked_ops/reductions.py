"""Masked forms of reductions and softmax: they run over the kept slots (O7, M3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_core.ops import reduction
from torch_dag_pruning.axes import Axis
from torch_dag_pruning.masked_ops.form import Masked, MaskOf, cleared, computed, count, weighted_mean


class MaskedReduction(Masked):
    """Base of masked reductions over the dimensions ``dims``."""

    def __init__(self, op: Any, dims: Sequence[int], axes: Sequence[Axis], mask_of: MaskOf) -> None:
        super().__init__(op, axes, mask_of)
        self.dims = tuple(dims)
        self.keepdim = bool(getattr(op, "keepdim", False))

    def over(self, x: Tensor) -> Tensor:
        """Return the product of the masks of the reduced dimensions, in a shape that broadcasts against ``x``."""
        return self.mask(x, self.dims)


class MaskedMean(MaskedReduction):
    """Mean: ``sum(m x) / sum(m)``."""

    def __init__(self, op: Any, dims: Sequence[int], axes: Sequence[Axis], mask_of: MaskOf) -> None:
        super().__init__(op, dims, axes, mask_of)
        self.dtype: torch.dtype | None = op.dtype

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean of the kept slots."""
        wide = computed(x if self.dtype is None else x.to(self.dtype))
        mean = weighted_mean(wide, self.over(wide), self.dims, keepdim=self.keepdim)
        return mean.to(x.dtype if self.dtype is None else self.dtype)


class MaskedExtreme(MaskedReduction):
    """Maximum or minimum of the slots whose mask is above 0."""

    def __init__(self, op: Any, dims: Sequence[int], axes: Sequence[Axis], mask_of: MaskOf) -> None:
        super().__init__(op, dims, axes, mask_of)
        self.is_maximum = isinstance(op, (reduction.Amax, reduction.MaxAlong))

    def forward(self, x: Tensor) -> Any:
        """Return the maximum or minimum of the kept slots."""
        reduce = torch.amax if self.is_maximum else torch.amin
        return reduce(self.shielded(x), self.dims, self.keepdim)

    def shielded(self, x: Tensor) -> Tensor:
        """Return ``x`` with masked slots set to the lowest value for a maximum, or the highest for a minimum."""
        limits = torch.finfo(x.dtype) if x.is_floating_point() else torch.iinfo(x.dtype)
        loser = limits.min if self.is_maximum else limits.max
        return torch.where(self.over(computed(x)) > 0, x, torch.full((), loser, dtype=x.dtype, device=x.device))


class MaskedExtremeAlong(MaskedExtreme):
    """Maximum or minimum along one dimension, with its position among all slots, including masked ones."""

    def forward(self, x: Tensor) -> Any:
        """Return the values and their positions."""
        reduce = torch.max if self.is_maximum else torch.min
        return tuple(reduce(self.shielded(x), self.dims[0], self.keepdim))


class MaskedVariance(MaskedReduction):
    """Variance, standard deviation, or variance and mean."""

    def __init__(self, op: Any, dims: Sequence[int], axes: Sequence[Axis], mask_of: MaskOf) -> None:
        super().__init__(op, dims, axes, mask_of)
        self.correction = float(op.correction)
        self.kind = type(op)

    def forward(self, x: Tensor) -> Any:
        """Return what the op returns for the kept slots alone."""
        wide = computed(x)
        mask = self.over(wide)
        mean = weighted_mean(wide, mask, self.dims)
        # Masked slots may hold any value, even NaN, so they are set to 0 before squaring.
        spread = cleared((cleared_difference(wide, mean, mask)).square(), mask).sum(list(self.dims), keepdim=True)
        variance = spread / (count(wide, mask, self.dims) - self.correction).clamp_min(1e-6)
        return self._result(self._shaped(variance).to(x.dtype), self._shaped(mean).to(x.dtype))

    def _shaped(self, value: Tensor) -> Tensor:
        return value if self.keepdim else value.sum(list(self.dims))

    def _result(self, variance: Tensor, mean: Tensor) -> Any:
        spread = variance.sqrt() if self.kind in {reduction.Std, reduction.StdMean} else variance
        return (spread, mean) if self.kind in {reduction.VarMean, reduction.StdMean} else spread


def cleared_difference(x: Tensor, mean: Tensor, mask: Tensor) -> Tensor:
    """Return ``x - mean``, and 0 where the mask is 0."""
    return torch.where(mask > 0, x - mean, torch.zeros((), dtype=x.dtype, device=x.device))


class MaskedLogSumExp(MaskedReduction):
    """Logarithm of a sum of exponentials: ``log(sum(m exp(x)))``."""

    def forward(self, x: Tensor) -> Tensor:
        """Return ``log(sum(m exp(x)))`` over the reduced dimensions."""
        wide = computed(x)
        exponentials, top = exponentials_of(wide, self.over(wide), self.dims)
        total = exponentials.sum(list(self.dims), keepdim=True).log() + top
        return (total if self.keepdim else total.sum(list(self.dims))).to(x.dtype)


class MaskedSoftmax(Masked):
    """Softmax, log-softmax or softmin: ``exp(x - max) m``, normalised.

    Adding ``log(m)`` to the operand would give the same values, but no gradient at m = 0 (M3).
    """

    def __init__(self, op: Any, dim: int, axis: Axis, mask_of: MaskOf) -> None:
        super().__init__(op, (axis,), mask_of)
        self.dim = dim
        self.is_log = isinstance(op, nn.LogSoftmax)
        self.sign = -1.0 if isinstance(op, nn.Softmin) else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """Return the softmax over the kept slots, or its logarithm, and 0 at masked slots."""
        wide = computed(x) * self.sign
        mask = self.mask(wide, [self.dim])
        exponentials, top = exponentials_of(wide, mask, [self.dim])
        total = exponentials.sum(self.dim, keepdim=True)
        if self.is_log:
            return (cleared_difference(wide, top + total.log(), mask)).to(x.dtype)
        # If no slot is kept, the total is 0; the divisor must not be, and all weights become 0.
        return (exponentials / total.clamp_min(torch.finfo(total.dtype).tiny)).to(x.dtype)


def exponentials_of(x: Tensor, mask: Tensor, dims: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return ``exp(x - max) m`` and ``max``, the maximum of the kept slots (0 if that is not finite)."""
    low = torch.full((), -torch.inf, dtype=x.dtype, device=x.device)
    alive = torch.where(mask > 0, x, low)
    top = alive.amax(list(dims), keepdim=True).detach()
    top = torch.where(top.isfinite(), top, torch.zeros((), dtype=x.dtype, device=x.device))
    return (alive - top).exp() * mask, top
