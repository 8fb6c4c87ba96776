"""Sizes that the model reads off tensors: integers that remember where they came from."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torch_dag_core.tracing.recording import Live
from torch_dag_core.tracing.size_log import SizeLog
from torch_dag_core.tracing.sizes import expression_of
from torch_dag_core.tracing.tracker import Tracker

SIZE_NAMES = frozenset({"shape", "size", "numel", "nelement", "nbytes", "stride"})
_SIZE = torch.Size
_len = len
"""The builtin itself, which is replaced for the length of a trace."""


class TracedShape(tuple[int, ...]):
    """The sizes of a recorded tensor; passes for a `torch.Size`, whose ``numel`` would lose them."""

    __slots__ = ()

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return _SIZE

    def numel(self) -> int:
        """Return the number of elements."""
        return math.prod(self)

    def __getitem__(self, place: Any) -> Any:
        found = tuple.__getitem__(self, place)
        return TracedShape(found) if isinstance(place, slice) else found

    def __repr__(self) -> str:
        return f"torch.Size({[int(getattr(size, 'number', size)) for size in self]})"

    def __add__(self, other: Any) -> Any:
        return TracedShape(tuple.__add__(self, tuple(other)))

    def __mul__(self, times: Any) -> Any:
        return TracedShape(tuple.__mul__(self, times))


class SizeReads:
    """Answers questions about the sizes of tensors that the trace knows."""

    def __init__(self, tracker: Tracker, log: SizeLog) -> None:
        self._tracker, self._log = tracker, log

    def read(self, name: str, tensor: Tensor, dim: int | None) -> Live:
        """Return a size, or all of them.

        Args:
            name: One of `SIZE_NAMES`.
            tensor: The tensor.
            dim: The dimension that ``size`` or ``stride`` was asked for; None asks for all.
        """
        shape = self._shape(tensor)
        if name in ("numel", "nelement"):
            return shape.numel()
        if name == "nbytes":
            return shape.numel() * tensor.element_size()
        sizes = self._strides(tensor, shape) if name == "stride" else shape
        return sizes if dim is None else sizes[dim]

    def length(self, value: Any) -> int:
        """Return what ``len`` gives: for a tensor of the trace, a number that is followed."""
        shape = value.shape if isinstance(value, Tensor) else ()
        return shape[0] if shape else _len(value)

    def plain_length(self, function: Callable[[Tensor], int], tensor: Tensor) -> int:
        """Return what ``tensor.__len__()`` gives, which Python makes an ordinary number."""
        if self._tracker.knows(tensor) and tensor.dim():
            self._shape(tensor)[0].lose()
        return function(tensor)

    def _shape(self, tensor: Tensor) -> TracedShape:
        number = self._tracker.tracked(tensor).ref.index
        return TracedShape(self._log.size(int(n), number, place) for place, n in enumerate(tensor.shape))

    def _strides(self, tensor: Tensor, shape: TracedShape) -> tuple[int, ...]:
        """Return the strides: products of sizes where the tensor is contiguous; else the sizes are lost."""
        if tensor.is_contiguous():
            return tuple(shape[dim + 1 :].numel() for dim in range(tensor.dim()))
        self._log.lost(expression_of(shape.numel()))
        return tensor.stride()
