"""The ops that the graph itself recognizes by class: the choice between modes, picking from a tuple, stored tensors.

The generated ``forward`` replaces a `TrainingSwitch` by one of its operands, nesting adds and removes `GetItem`
vertices, and a state dict holds the tensor of a `TensorHolder` under the name of its vertex. All other ops lie in
`torch_dag_core.ops`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torch_dag_core.graph.op import Op


class TrainingSwitch(Op):
    """Return the first operand in evaluation, the second in training; the other branch is not computed."""

    has_modes: ClassVar[bool] = True

    def forward(self, evaluation: Tensor, training: Tensor) -> Tensor:
        """Return one of two tensors of equal shape."""
        return training if self.training else evaluation


class GetItem(Op):
    """Pick one element of a tuple of tensors."""

    index: int

    def forward(self, values: tuple[Tensor, ...]) -> Tensor:
        """Return ``values[index]``."""
        return values[self.index]


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
        """Return shape and type, as `print` shows them."""
        return f"{tuple(self.value.shape)}, {self.value.dtype}"

    def forward(self) -> Tensor:
        """Return the tensor itself."""
        return self.value


class FreeParameter(TensorHolder):
    """A learned tensor that belongs to no other op: a class token, a position embedding, a scale."""

    def _hold(self, value: Tensor) -> None:
        self.value = value if isinstance(value, nn.Parameter) else nn.Parameter(value)


class Constant(TensorHolder):
    """A tensor that does not depend on the inputs: a buffer, or what the model computes from buffers."""


class State(TensorHolder):
    """A buffer that the model itself overwrites; every vertex that reads or writes it calls the same module."""

    has_side_effect: ClassVar[bool] = True

    def forward(self, *update: Tensor) -> Tensor:
        """Without an operand, return a copy of the value; with one, overwrite the value and return a copy."""
        if update:
            with torch.no_grad():
                self.value.copy_(update[0])
        return self.value.clone()
