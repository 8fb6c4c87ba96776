"""Ops that reduce dimensions or run along one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_core.graph.op import Op
from torch_dag_core.ops.flops import Parameters, Shapes, numel, per_input
from torch_dag_core.plugins.codecs import ModuleCodec
from torch_dag_core.plugins.declarations import declare, op

Dims = int | tuple[int, ...] | None


@op("core.sum", flops=per_input)
class Sum(Op):
    """Sum over dimensions."""

    dim: Dims = None
    keepdim: bool = False
    dtype: torch.dtype | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of ``x`` over ``dim``, or over all dimensions if it is None."""
        return torch.sum(x, self.dim, self.keepdim, dtype=self.dtype)


@op("core.mean", flops=per_input)
class Mean(Op):
    """Mean over dimensions."""

    dim: Dims = None
    keepdim: bool = False
    dtype: torch.dtype | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean of ``x`` over ``dim``, or over all dimensions if it is None."""
        return torch.mean(x, self.dim, self.keepdim, dtype=self.dtype)


@op("core.amax", flops=per_input)
class Amax(Op):
    """Maximum over dimensions."""

    dim: Dims = ()
    keepdim: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the maximum of ``x`` over ``dim``."""
        return torch.amax(x, self.dim, self.keepdim)  # type: ignore[arg-type]


@op("core.amin", flops=per_input)
class Amin(Op):
    """Minimum over dimensions."""

    dim: Dims = ()
    keepdim: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the minimum of ``x`` over ``dim``."""
        return torch.amin(x, self.dim, self.keepdim)  # type: ignore[arg-type]


@op("core.max_along", flops=per_input)
class MaxAlong(Op):
    """Maximum along one dimension, with its position."""

    dim: int
    keepdim: bool = False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maxima and their positions along ``dim``."""
        return tuple(torch.max(x, self.dim, self.keepdim))  # type: ignore[return-value]


@op("core.min_along", flops=per_input)
class MinAlong(Op):
    """Minimum along one dimension, with its position."""

    dim: int
    keepdim: bool = False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the minima and their positions along ``dim``."""
        return tuple(torch.min(x, self.dim, self.keepdim))  # type: ignore[return-value]


@op("core.var", flops=per_input)
class Var(Op):
    """Variance over dimensions."""

    dim: Dims = None
    correction: float = 1
    keepdim: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the variance of ``x`` over ``dim``, dividing by ``n - correction``."""
        return torch.var(x, self.dim, correction=self.correction, keepdim=self.keepdim)


@op("core.std", flops=per_input)
class Std(Op):
    """Standard deviation over dimensions."""

    dim: Dims = None
    correction: float = 1
    keepdim: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the standard deviation of ``x`` over ``dim``, dividing by ``n - correction``."""
        return torch.std(x, self.dim, correction=self.correction, keepdim=self.keepdim)


@op("core.var_mean", flops=per_input)
class VarMean(Op):
    """Variance and mean over dimensions."""

    dim: Dims = None
    correction: float = 1
    keepdim: bool = False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return variance (divided by ``n - correction``) and mean of ``x`` over ``dim``."""
        return tuple(torch.var_mean(x, self.dim, correction=self.correction, keepdim=self.keepdim))  # type: ignore[return-value]


@op("core.std_mean", flops=per_input)
class StdMean(Op):
    """Standard deviation and mean over dimensions."""

    dim: Dims = None
    correction: float = 1
    keepdim: bool = False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return standard deviation (from a variance divided by ``n - correction``) and mean of ``x`` over ``dim``."""
        return tuple(torch.std_mean(x, self.dim, correction=self.correction, keepdim=self.keepdim))  # type: ignore[return-value]


@op("core.norm", flops=per_input)
class Norm(Op):
    """Vector norm over dimensions."""

    p: float | str | None = "fro"
    dim: Dims = None
    keepdim: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the p-norm of ``x`` over ``dim``."""
        return torch.norm(x, self.p, self.dim, self.keepdim)  # type: ignore[no-any-return]


@op("core.logsumexp", functions=("logsumexp",), aliases=("core.log_sum_exp",), flops=per_input)
class LogSumExp(Op):
    """Logarithm of a sum of exponentials."""

    dim: int | tuple[int, ...]
    keepdim: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """Return ``log(sum(exp(x)))`` over ``dim``."""
        return torch.logsumexp(x, self.dim, self.keepdim)


@op("core.argmax", functions=("argmax",), flops=per_input)
class Argmax(Op):
    """Position of the maximum."""

    dim: int | None = None
    keepdim: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the position of the maximum along ``dim``, or in the flattened tensor if it is None."""
        return torch.argmax(x, self.dim, self.keepdim)


@op("core.argmin", functions=("argmin",), flops=per_input)
class Argmin(Op):
    """Position of the minimum."""

    dim: int | None = None
    keepdim: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """Return the position of the minimum along ``dim``, or in the flattened tensor if it is None."""
        return torch.argmin(x, self.dim, self.keepdim)


@op("core.cumsum", functions=("cumsum",), aliases=("core.cum_sum",), flops=per_input)
class CumSum(Op):
    """Cumulative sum along one dimension."""

    dim: int
    dtype: torch.dtype | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return the cumulative sum of ``x`` along ``dim``."""
        return torch.cumsum(x, self.dim, dtype=self.dtype)


@op("core.topk", functions=("topk",), aliases=("core.top_k",), flops=per_input)
class TopK(Op):
    """The k largest or smallest elements along one dimension, with their positions."""

    k: int
    dim: int = -1
    largest: bool = True
    sorted: bool = True

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the elements and their positions along ``dim``."""
        return tuple(torch.topk(x, self.k, self.dim, self.largest, self.sorted))  # type: ignore[return-value]


@op("core.sort", functions=("sort",), flops=per_input)
class Sort(Op):
    """The sorted elements along one dimension, with their positions."""

    dim: int = -1
    descending: bool = False
    stable: bool = False

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sorted elements and their positions along ``dim``."""
        return tuple(torch.sort(x, dim=self.dim, descending=self.descending, stable=self.stable))  # type: ignore[return-value]


def cosine_similarity(module: Any, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return the FLOPs of three sums of products over the compared dimension."""
    del parameters
    return 6 * numel(outputs[0]) * max(inputs, key=len)[module.dim]


def pairwise_distance(module: Any, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return four FLOPs per compared element: a difference, the addition of ``eps``, a power and a sum."""
    del module, parameters
    return 4 * numel(outputs[0]) * inputs[0][-1]


COSINE_SIMILARITY = declare("core.cosine_similarity", nn.CosineSimilarity, flops=cosine_similarity)
PAIRWISE_DISTANCE = declare(
    "core.pairwise_distance", nn.PairwiseDistance, flops=pairwise_distance,
    codec=ModuleCodec(nn.PairwiseDistance, readers={"p": lambda module: module.norm}),
)  # fmt: skip
