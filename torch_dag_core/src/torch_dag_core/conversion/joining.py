"""Two recordings of a model at different input sizes, held side by side: what differs between them is free.

Everything here reads recordings and returns something new; no recording is changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, NoReturn, TypeVar

import torch
from torch import Tensor

from torch_dag_core.errors import TraceError
from torch_dag_core.graph.nested import map_pairs
from torch_dag_core.tracing.recording import Argument, Recording, Ref, Shape

T = TypeVar("T")


class SizeError(TraceError):
    """Something follows the input sizes in a way that a graph cannot state."""


class FreeSize(int):
    """An integer that was another one at other input sizes; only a builder may turn it into a `Size`."""

    other: int

    @classmethod
    def make(cls, value: int, other: int) -> FreeSize:
        """Return ``value``, remembering ``other``."""
        free = cls(value)
        free.other = other
        return free

    def _refuse(self, *_: object) -> NoReturn:
        message = f"arithmetic on a size that follows the inputs ({int(self)} here, {self.other} elsewhere)"
        raise SizeError(message)

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __neg__ = _refuse

    def __repr__(self) -> str:
        return f"FreeSize({int(self)}|{self.other})"


@dataclass(frozen=True)
class ByMode(Generic[T]):
    """An argument that differs between evaluation and training."""

    evaluation: T
    training: T


def same_calls(first: Recording, second: Recording) -> bool:
    """Tell whether two recordings have the same calls in the same order, on the same operands."""
    return len(first.entries) == len(second.entries) and all(
        a.signature == b.signature and a.operands == b.operands
        for a, b in zip(first.entries, second.entries, strict=True)
    )


def _join_leaf(value: Argument, other: Argument) -> Argument:
    """Return what two recordings at different sizes have at one place: a `FreeSize` where the integer differs."""
    if isinstance(value, Ref) or equal(value, other):
        return value
    if type(value) is int and type(other) is int:
        return FreeSize.make(value, other)
    message = f"a constant of a call is {value!r} at one input size and {other!r} at another"
    raise SizeError(message)


def equal(a: object, b: object) -> bool:
    """Tell whether two constants are the same; unlike in Python, NaN is NaN."""
    return bool(a == b) or (a != a and b != b)  # noqa: PLR0124


@dataclass(frozen=True, eq=False)
class Sizes:
    """One mode's recording, and a second one of the same calls at other input sizes.

    Attributes:
        recording: The first.
        other: The second; None where no second could be made.
        unfolded: Numbers of the constants that must not be taken as such.
    """

    recording: Recording
    other: Recording | None
    unfolded: frozenset[int] = frozenset()
    _folded: dict[int, bool] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, recording: Recording, resized: Recording) -> Sizes:
        """Return two recordings at different sizes.

        Raises:
            SizeError: their calls or results are not the same.
        """
        if not same_calls(recording, resized):
            message = "the model makes other calls at other input sizes"
            raise SizeError(message)
        if recording.template != resized.template:
            message = "the model returns a number that follows the input sizes"
            raise SizeError(message)
        return cls(recording, resized)

    def in_training(self, recording: Recording) -> Sizes:
        """Return the sizes of a recording in training that has the same calls as this one."""
        return Sizes(recording, self.other or self.recording)

    def shape(self, index: int) -> Shape | None:
        """Return the shape of an entry's tensor, with a `FreeSize` for each size that follows the inputs."""
        shape = self.recording.entries[index].outcome.shape
        other = shape if self.other is None else self.other.entries[index].outcome.shape
        return shape if shape == other else map_pairs(shape, other, _join_leaf)

    def items(self, index: int) -> tuple[Shape | None, ...] | None:
        """Return the same for the shapes of several results."""
        items = self.recording.entries[index].outcome.items
        other = items if self.other is None else self.other.entries[index].outcome.items
        return items if items == other else map_pairs(items, other, _join_leaf)

    def arguments(self, index: int) -> tuple[tuple[Argument, ...], Mapping[str, Argument]]:
        """Return the arguments of an entry, with a `FreeSize` for each integer that follows the inputs."""
        entry = self.recording.entries[index]
        if self.other is None:
            return entry.args, entry.keywords
        other = self.other.entries[index]
        args: tuple[Argument, ...] = map_pairs(entry.args, other.args, _join_leaf)
        return args, map_pairs(entry.keywords, other.keywords, _join_leaf)

    def size(self, index: int, dim: int) -> int:
        """Return one size of an entry's tensor."""
        shape = self.shape(index)
        assert shape is not None
        return shape[dim]

    def is_folded(self, index: int) -> bool:
        """Tell whether an entry is one constant tensor, of the same value at both sizes."""
        if index not in self._folded:
            self._folded[index] = index not in self.unfolded and self._has_one_value(index)
        return self._folded[index]

    def _has_one_value(self, index: int) -> bool:
        value = self.recording.entries[index].outcome.tensor
        if value is None or self.other is None:
            return value is not None
        other = self.other.entries[index].outcome.tensor
        return other is not None and _same_tensor(value, other)


def _same_tensor(a: Tensor, b: Tensor) -> bool:
    if a is b or (a.shape, a.dtype) != (b.shape, b.dtype) or a.is_meta or b.is_meta:
        return a is b
    return torch.allclose(a, b, 0, 0, equal_nan=True)
