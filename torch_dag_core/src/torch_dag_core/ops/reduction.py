"""Ops that reduce dimensions, or run along one."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_dag_core.graph.op import Op

Dims = int | tuple[int, ...] | None


class Sum(Op):
    """Sum over dimensions."""

    dim: Dims = None
    keepdim: bool = False
    dtype: torch.dtype | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of ``x`` over ``dim``, over everything where it is None."""
        return torch.sum(x, self.dim, self.keepdim, dtype=self.dtype)


class Mean(Op):
    """Mean over dimensions."""

    dim: Dims = None
    keepdim: bool = False
    dtype: torch.dtype | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean of ``x`` over ``dim``, over everything where it is None."""
        return torch.mean(x, self.dim, self.keepdim, dtype=self.dtype)


class Amax(Op):
    """Maximum over dimensions."""

    dim: Dims = ()
    keepdim: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the maximum of ``x`` over ``dim``."""
        return torch.amax(x, self.dim, self.keepdim)  # type: ignore[arg-type]


class Amin(Op):
    """Minimum over dimensions."""

    dim: Dims = ()
    keepdim: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the minimum of ``x`` over ``dim``."""
        return torch.amin(x, self.dim, self.keepdim)  # type: ignore[arg-type]


class MaxAlong(Op):
    """Maximum along one dimension, with its positions."""

    dim: int
    keepdim: bool = False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return values and indices."""
        return tuple(torch.max(x, self.dim, self.keepdim))  # type: ignore[return-value]


class MinAlong(Op):
    """Minimum along one dimension, with its positions."""

    dim: int
    keepdim: bool = False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return values and indices."""
        return tuple(torch.min(x, self.dim, self.keepdim))  # type: ignore[return-value]


class Var(Op):
    """Variance over dimensions."""

    dim: Dims = None
    correction: float = 1
    keepdim: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the variance of ``x`` over ``dim``, dividing by ``n - correction``."""
        return torch.var(x, self.dim, correction=self.correction, keepdim=self.keepdim)


class Std(Op):
    """Standard deviation over dimensions."""

    dim: Dims = None
    correction: float = 1
    keepdim: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the standard deviation of ``x`` over ``dim``, dividing by ``n - correction``."""
        return torch.std(x, self.dim, correction=self.correction, keepdim=self.keepdim)


class VarMean(Op):
    """Variance and mean over dimensions."""

    dim: Dims = None
    correction: float = 1
    keepdim: bool = False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return variance (divided by ``n - correction``) and mean of ``x`` over ``dim``."""
        return tuple(torch.var_mean(x, self.dim, correction=self.correction, keepdim=self.keepdim))  # type: ignore[return-value]


class Norm(Op):
    """Vector norm over dimensions."""

    p: float | str | None = "fro"
    dim: Dims = None
    keepdim: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the p-norm of ``x`` over ``dim``."""
        return torch.norm(x, self.p, self.dim, self.keepdim)  # type: ignore[no-any-return]


class LogSumExp(Op):
    """Logarithm of a sum of exponentials."""

    dim: int | tuple[int, ...]
    keepdim: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """Return ``log(sum(exp(x)))`` over ``dim``."""
        return torch.logsumexp(x, self.dim, self.keepdim)


class Argmax(Op):
    """Position of the maximum."""

    dim: int | None = None
    keepdim: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the index of the maximum along ``dim``, in the flattened tensor where it is None."""
        return torch.argmax(x, self.dim, self.keepdim)


class Argmin(Op):
    """Position of the minimum."""

    dim: int | None = None
    keepdim: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the index of the minimum along ``dim``, in the flattened tensor where it is None."""
        return torch.argmin(x, self.dim, self.keepdim)


class CumSum(Op):
    """Running sum along one dimension."""

    dim: int
    dtype: torch.dtype | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the running sum of ``x`` along ``dim``."""
        return torch.cumsum(x, self.dim, dtype=self.dtype)


class TopK(Op):
    """The largest elements along one dimension, with their positions."""

    k: int
    dim: int = -1
    largest: bool = True
    sorted: bool = True

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return values and indices."""
        return tuple(torch.topk(x, self.k, self.dim, self.largest, self.sorted))  # type: ignore[return-value]


class Sort(Op):
    """Sorted elements along one dimension, with their positions."""

    dim: int = -1
    descending: bool = False
    stable: bool = False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return values and indices."""
        return tuple(torch.sort(x, dim=self.dim, descending=self.descending, stable=self.stable))  # type: ignore[return-value]
