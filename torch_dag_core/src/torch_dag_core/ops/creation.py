"""Tensors created with sizes that may be read off operands."""

from __future__ import annotations

import torch
from torch import Tensor

from torch_dag_core.graph.op import Op
from torch_dag_core.graph.values import Size, resolve
from torch_dag_core.ops.flops import free
from torch_dag_core.plugins.declarations import op


@op("core.full", flops=free)
class Full(Op):
    """A tensor of one value, on the device of the first operand."""

    shape: tuple[int | Size, ...]
    value: float | bool = 0.0
    dtype: torch.dtype | None = None

    def forward(self, *like: Tensor) -> Tensor:
        """Return a tensor of ``shape`` filled with ``value``, in ``dtype`` or else that of the first operand."""
        dtype = like[0].dtype if self.dtype is None else self.dtype
        return torch.full(resolve(self.shape, like), self.value, dtype=dtype, device=like[0].device)


@op("core.arange", flops=free)
class Arange(Op):
    """Evenly spaced numbers, on the device of the first operand."""

    start: float | Size
    end: float | Size
    step: float | Size = 1
    dtype: torch.dtype = torch.int64

    def forward(self, *like: Tensor) -> Tensor:
        """Return ``start, start + step, ...`` up to but not including ``end``."""
        start, end, step = resolve((self.start, self.end, self.step), like)
        return torch.arange(start, end, step, dtype=self.dtype, device=like[0].device)


@op("core.linspace", flops=free)
class Linspace(Op):
    """A given number of evenly spaced points, on the device of the first operand."""

    start: float
    end: float
    steps: int | Size
    dtype: torch.dtype = torch.float32

    def forward(self, *like: Tensor) -> Tensor:
        """Return ``steps`` points from ``start`` to ``end``, both included."""
        steps = resolve(self.steps, like)
        return torch.linspace(self.start, self.end, steps, dtype=self.dtype, device=like[0].device)
