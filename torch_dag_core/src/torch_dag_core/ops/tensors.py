"""Parameters and buffers that stand alone in the graph."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torch_dag_core.graph.op import Op
from torch_dag_core.ops.flops import free
from torch_dag_core.plugins.declarations import op


class TensorHolder(nn.Module):
    """Base of vertices without operands that hold one tensor under the attribute ``value``.

    ``shape`` and ``dtype`` are read off the tensor, so they are right after any edit; ``persistent`` tells whether
    state dicts hold it.
    """

    value: Tensor

    def __init__(
        self, shape: tuple[int, ...], dtype: torch.dtype, *, persistent: bool = True, value: Tensor | None = None
    ) -> None:
        super().__init__()
        self.persistent = persistent
        self._hold(torch.empty(shape, dtype=dtype, device="meta") if value is None else value)

    def _hold(self, value: Tensor) -> None:
        self.register_buffer("value", value, persistent=self.persistent)

    def config(self) -> dict[str, Any]:
        """Return shape and type of the tensor, and whether state dicts hold it."""
        return {"shape": tuple(self.value.shape), "dtype": self.value.dtype, "persistent": self.persistent}

    def extra_repr(self) -> str:
        """Show shape and type."""
        return f"{tuple(self.value.shape)}, {self.value.dtype}"

    def forward(self) -> Tensor:
        """Return the tensor itself."""
        return self.value


class FreeParameter(TensorHolder):
    """A learned tensor that no module of the vocabulary owns: a class token, a position embedding, a scale."""

    def _hold(self, value: Tensor) -> None:
        self.value = value if isinstance(value, nn.Parameter) else nn.Parameter(value)


class Constant(TensorHolder):
    """A tensor that does not depend on the inputs: a buffer, or something the model computes from none."""


@op("core.keep", flops=free)
class Keep(Op):
    """Pass on a value that nothing reads, so that the state which its vertex updates is updated."""

    has_side_effect: ClassVar[bool] = True

    def forward(self, x: Any) -> Any:
        """Return ``x``."""
        return x


class State(TensorHolder):
    """A buffer that the model itself overwrites; every vertex that reads or writes it calls the same module."""

    has_side_effect: ClassVar[bool] = True

    def forward(self, *update: Tensor) -> Tensor:
        """Without an operand, return a copy of the value; with one, overwrite the value and return a copy."""
        if update:
            with torch.no_grad():
                self.value.copy_(update[0])
        return self.value.clone()
