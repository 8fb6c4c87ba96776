"""The op that multiplies the value of one edge by a mask (M1)."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torch_dag_core.graph.op import Op


class Mask(Op):
    """Multiply by a mask in [0, 1]; elements with mask 0 become 0, even if they are NaN or infinite.

    The mask is a buffer. It may be replaced by any tensor of the same shape, also by one that requires gradients, which
    flow into it where it is above 0.

    ``shape`` and ``dtype`` are those of the mask, which broadcasts against the operand. ``persistent`` states whether
    the mask is in state dicts.
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
        """Return an op with this mask."""
        return cls(tuple(mask.shape), mask.dtype, mask, persistent=persistent)

    def __getstate__(self) -> dict[str, Any]:
        return detached_state(self)

    def config(self) -> dict[str, Any]:
        """Return the shape and dtype of the mask, and whether it is in state dicts."""
        persistent = "mask" not in self._non_persistent_buffers_set
        return {"shape": tuple(self.mask.shape), "dtype": self.mask.dtype, "persistent": persistent}

    def extra_repr(self) -> str:
        """Return the shape of the mask and the number of its zeros."""
        return f"{tuple(self.mask.shape)}, {int((self.mask == 0).sum())} of {self.mask.numel()} off"

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x * mask``, and 0 where the mask is 0."""
        mask = self.mask.to(x)
        return torch.where(mask > 0, mask * x, torch.zeros((), dtype=x.dtype, device=x.device))


def detached_state(module: nn.Module) -> dict[str, Any]:
    """Return the state of a module to copy, with buffers detached from the autograd graph.

    Python cannot deep-copy a tensor that was computed from others with gradients, such as a learned mask.
    """
    buffers = {
        name: buffer.detach() if buffer is not None and buffer.grad_fn is not None else buffer
        for name, buffer in module._buffers.items()
    }
    return {**module.__dict__, "_buffers": buffers}
