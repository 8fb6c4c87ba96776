"""The op that lays a mask over one edge of a graph."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torch_dag_core.graph.op import Op


class Mask(Op):
    """Multiply by a mask in [0, 1]; what is masked by 0 becomes 0 whatever it was, NaN included.

    The mask is a buffer. It may be replaced by any tensor of the same shape, also by one that requires gradients.
    Gradients flow into it where it is above 0.

    ``shape`` is the mask's: it broadcasts against the operand. ``persistent`` tells whether state dicts hold it.
    """

    shape: ClassVar[tuple[int, ...]]
    dtype: ClassVar[torch.dtype]
    persistent: ClassVar[bool]
    fields: ClassVar[dict[str, Any]] = {}
    mask: Tensor

    def __init__(
        self, shape: tuple[int, ...], dtype: torch.dtype, mask: Tensor | None = None, *, persistent: bool = True
    ) -> None:
        nn.Module.__init__(self)
        self.register_buffer("mask", torch.empty(shape, dtype=dtype) if mask is None else mask, persistent=persistent)

    @classmethod
    def of(cls, mask: Tensor, *, persistent: bool = True) -> Mask:
        """Return the op with this mask."""
        return cls(tuple(mask.shape), mask.dtype, mask, persistent=persistent)

    def __getstate__(self) -> dict[str, Any]:
        return detached_state(self)

    def config(self) -> dict[str, Any]:
        """Return shape and type of the mask, and whether state dicts hold it."""
        persistent = "mask" not in self._non_persistent_buffers_set
        return {"shape": tuple(self.mask.shape), "dtype": self.mask.dtype, "persistent": persistent}

    def extra_repr(self) -> str:
        """Show the shape and how much of it is masked."""
        return f"{tuple(self.mask.shape)}, {int((self.mask == 0).sum())} of {self.mask.numel()} off"

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x * mask``, and 0 where the mask is 0."""
        mask = self.mask.to(x)
        return torch.where(mask > 0, mask * x, torch.zeros((), dtype=x.dtype, device=x.device))


def detached_state(module: nn.Module) -> dict[str, Any]:
    """Return what a copy of a module is made of: itself, without the gradient history of masks that are being learned.

    A tensor that is computed from others cannot be copied with its history, so that graphs under learned masks could
    not be cloned.
    """
    buffers = {
        name: buffer.detach() if buffer is not None and buffer.grad_fn is not None else buffer
        for name, buffer in module._buffers.items()
    }
    return {**module.__dict__, "_buffers": buffers}
