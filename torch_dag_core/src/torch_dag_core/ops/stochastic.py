"""Ops that draw random numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_core.graph.op import Op
from torch_dag_core.graph.values import Size, resolve
from torch_dag_core.ops.flops import Parameters, Shapes, elementwise, free
from torch_dag_core.plugins.declarations import declare, op


def _functional_dropout(module: Any, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    rule = elementwise if module.active_in_evaluation else free
    return rule(module, inputs, outputs, parameters)


def drop_path(x: Tensor, drop_prob: float, scale_by_keep: bool, training: bool) -> Tensor:  # noqa: FBT001
    """Set whole samples of x (batch, ...) to zero in training mode (stochastic depth, arXiv:1603.09382)."""
    if drop_prob == 0.0 or not training:
        return x
    keep = 1 - drop_prob
    mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
    if keep > 0.0 and scale_by_keep:
        mask.div_(keep)
    return x * mask


def stochastic_depth(x: Tensor, p: float, mode: str, training: bool) -> Tensor:  # noqa: FBT001
    """Set samples (mode "row") or the whole batch ("batch") to zero in training mode, as torchvision does."""
    if p == 0.0 or not training:
        return x
    survival = 1.0 - p
    rows = x.shape[0] if mode == "row" else 1
    mask = torch.empty((rows,) + (1,) * (x.ndim - 1), dtype=x.dtype, device=x.device).bernoulli_(survival)
    if survival > 0.0:
        mask.div_(survival)
    return x * mask


@op("core.drop_path", flops=free)
class DropPath(Op):
    """Set whole samples of a residual branch to zero in training mode (stochastic depth, arXiv:1603.09382)."""

    drop_prob: float
    scale_by_keep: bool = True

    def forward(self, x: Tensor) -> Tensor:
        """Multiply each sample of x (batch, ...) by 0 or 1, drawn at random; ``scale_by_keep`` preserves the mean."""
        return drop_path(x, self.drop_prob, self.scale_by_keep, self.training)


@op("core.stochastic_depth", flops=free)
class StochasticDepth(Op):
    """Set samples (mode "row") or the whole batch ("batch") to zero in training mode.

    Random numbers are drawn as torchvision's class of this name draws them.
    """

    p: float
    mode: str = "row"

    def forward(self, x: Tensor) -> Tensor:
        """Multiply x (batch, ...) by 0 or 1, drawn at random and scaled to preserve the mean."""
        return stochastic_depth(x, self.p, self.mode, self.training)


@op("core.functional_dropout", flops=_functional_dropout)
class FunctionalDropout(Op):
    """Dropout with fixed behaviour in each mode, from a call of ``functional.dropout``."""

    p: float
    active_in_training: bool = True
    active_in_evaluation: bool = False

    def forward(self, x: Tensor) -> Tensor:
        """Set elements of ``x`` to zero with probability ``p`` and scale the others by ``1 / (1 - p)``, if active."""
        active = self.active_in_training if self.training else self.active_in_evaluation
        return torch.nn.functional.dropout(x, self.p, active)


@op("core.random", flops=free)
class Random(Op):
    """A tensor of random numbers, drawn anew at each call, on the device of the first operand."""

    shape: tuple[int | Size, ...]
    distribution: str = "uniform"
    dtype: torch.dtype | None = None
    parameter: float | None = None

    def forward(self, *like: Tensor) -> Tensor:
        """Return a random tensor of ``shape``, in ``dtype`` or else that of the first operand."""
        shape = resolve(self.shape, like)
        dtype = like[0].dtype if self.dtype is None else self.dtype
        device = like[0].device
        if self.distribution == "bernoulli":
            return torch.empty(shape, dtype=dtype, device=device).bernoulli_(self.parameter)  # type: ignore[arg-type]
        return _DISTRIBUTIONS[self.distribution](shape, dtype=dtype, device=device)


_DISTRIBUTIONS = {"uniform": torch.rand, "normal": torch.randn}


MODULES = (
    declare("core.dropout", nn.Dropout, flops=free),
    declare("core.dropout1d", nn.Dropout1d, flops=free),
    declare("core.dropout2d", nn.Dropout2d, flops=free),
    declare("core.dropout3d", nn.Dropout3d, flops=free),
    declare("core.alpha_dropout", nn.AlphaDropout, flops=free),
    declare("core.feature_alpha_dropout", nn.FeatureAlphaDropout, flops=free),
    declare("core.rrelu", nn.RReLU, flops=elementwise),
)
