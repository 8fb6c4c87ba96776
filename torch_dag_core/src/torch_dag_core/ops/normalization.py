"""Normalisation whose affine tensors are computed tensors of the graph."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from torch_dag_core.graph.op import Op


class LayerNormFunction(Op):
    """Layer normalisation (arXiv:1607.06450)."""

    normalized_shape: tuple[int, ...]
    eps: float = 1e-5

    def forward(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Normalise x over its last dimensions ``normalized_shape``, then scale and shift."""
        return functional.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class RMSNormFunction(Op):
    """Root mean square normalisation (arXiv:1910.07467)."""

    normalized_shape: tuple[int, ...]
    eps: float | None = None

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Normalise x over its last dimensions ``normalized_shape``, then scale."""
        return functional.rms_norm(x, self.normalized_shape, weight, self.eps)


class GroupNormFunction(Op):
    """Group normalisation (arXiv:1803.08494)."""

    num_groups: int
    eps: float = 1e-5

    def forward(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Normalise x (batch, channels, *) within each group of channels, then scale and shift."""
        return functional.group_norm(x, self.num_groups, weight, bias, self.eps)


class BatchNormFunction(Op):
    """Batch statistics of one call, without running ones; used for weight standardisation."""

    eps: float = 1e-5

    def forward(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Normalise each channel of x (batch, channels, *) by its statistics in this call, then scale and shift."""
        return functional.batch_norm(x, None, None, weight, bias, training=True, momentum=0.0, eps=self.eps)


class FrozenBatchNorm(Op):
    """Batch normalisation by given statistics, in training too."""

    eps: float = 1e-5

    def forward(
        self, x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """Normalise each channel of x (batch, channels, *) by ``mean`` and ``var``, then scale and shift."""
        return functional.batch_norm(x, mean, var, weight, bias, training=False, momentum=0.0, eps=self.eps)


class Normalize(Op):
    """Divide by the p-norm along a dimension."""

    p: float = 2.0
    dim: int | tuple[int, ...] = 1
    eps: float = 1e-12

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x / max(norm(x), eps)``."""
        return functional.normalize(x, self.p, self.dim, self.eps)  # type: ignore[arg-type]
