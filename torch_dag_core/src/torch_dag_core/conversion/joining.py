"""Recordings of a model in one mode at different input sizes, held side by side: what differs between them is free.

Everything here reads recordings and returns something new; no recording is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor

from torch_dag_core.conversion.free_sizes import Claim, Formula, FreeSize, SizeError, SizeOf, listed
from torch_dag_core.graph.conditions import OPERATORS
from torch_dag_core.graph.nested import leaves, map_pairs, map_together
from torch_dag_core.tracing.expressions import EntrySize, Expression
from torch_dag_core.tracing.recording import Argument, Entry, Outcome, Recording, Ref, Shape
from torch_dag_core.tracing.settled import SETTLED, SettledFloat, SettledInt, plain

T = TypeVar("T")
_ATOMS = frozenset({int, bool, str, type(None)})
"""Classes of most constants, whose values say all about them."""
Given: TypeAlias = "tuple[tuple[Argument, ...], Mapping[str, Argument]]"
"""Arguments by position and by name."""


@dataclass(frozen=True)
class ByMode(Generic[T]):
    """An argument that differs between evaluation and training."""

    evaluation: T
    training: T


class Joined(NamedTuple):
    """Arguments of a call at all sizes, and what their constants rest on."""

    arguments: Given
    claims: tuple[Claim, ...]


def same_calls(first: Recording, second: Recording) -> bool:
    """Tell whether two recordings have the same calls in the same order, on the same operands."""
    return len(first.entries) == len(second.entries) and all(
        a.signature == b.signature and a.operands == b.operands
        for a, b in zip(first.entries, second.entries, strict=True)
    )


def same_numbers(first: Recording, second: Recording) -> bool:
    """Tell whether two recordings of the same calls computed the same numbers as constants."""
    return all(_numbers(a) == _numbers(b) for a, b in zip(first.entries, second.entries, strict=True))


def _numbers(entry: Entry) -> list[tuple[float, Expression | None]]:
    found = leaves((entry.args, tuple(entry.keywords.values())))
    kept = [leaf for leaf in found if isinstance(leaf, (int, float)) and not isinstance(leaf, bool)]
    return [(plain(leaf), getattr(leaf, "expression", None)) for leaf in kept]


def equal(a: object, b: object) -> bool:
    """Tell whether two constants are the same, at all sizes where those of both are known; NaN equals NaN."""
    return bool(a == b) or (a != a and b != b)  # noqa: PLR0124


class _Seen:
    """What stood at one place, in every recording."""

    def __init__(self, values: tuple[Argument, ...]) -> None:
        self.values = values


@dataclass(frozen=True, eq=False)
class Sizes:
    """One mode's recording, and others of the same calls at other input sizes.

    Attributes:
        recording: The first, from which names and calls are read.
        others: The rest.
        twin: The sizes in evaluation, where ``recording`` is the only one in training: both modes make the same calls
            with the same numbers, so ``others`` are those of evaluation. None where all recordings are of one mode.
        unfolded: Numbers of the constants that must not be taken as such.
    """

    recording: Recording
    others: tuple[Recording, ...] = ()
    twin: Sizes | None = None
    unfolded: frozenset[int] = frozenset()
    _joined: dict[int, Joined] = field(default_factory=dict, repr=False)
    _shapes: dict[int, Shape | None] = field(default_factory=dict, init=False, repr=False)
    _folded: dict[int, bool] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, recording: Recording, *others: Recording) -> Sizes:
        """Return recordings at different sizes.

        Raises:
            SizeError: their calls or results are not the same.
        """
        sizes = cls(recording)
        for other in others:
            sizes = sizes.joined_with(other)
        return sizes

    def joined_with(self, recording: Recording) -> Sizes:
        """Return the sizes with another recording of the same mode.

        Raises:
            SizeError: its calls or results are not the same.
        """
        if not same_calls(self.recording, recording):
            message = "the model makes other calls at other input sizes"
            raise SizeError(message)
        if self.recording.template != recording.template:
            message = "the model returns a number that follows the input sizes"
            raise SizeError(message)
        return Sizes(self.recording, (*self.others, recording))

    def in_training(self, recording: Recording) -> Sizes:
        """Return the sizes of a recording in training that has the same calls and numbers as this one."""
        return Sizes(recording, self.others, self)

    @cached_property
    def recordings(self) -> tuple[Recording, ...]:
        """The recordings at all sizes."""
        return (self.recording, *self.others)

    @cached_property
    def input_shapes(self) -> tuple[Shape, ...]:
        """The shapes of the inputs, with a `FreeSize` for each size that differs."""
        return self._seen_by(lambda recording: recording.input_shapes)

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch size of every recording: the first size of the first input that has any."""
        batch = next((shape[0] for shape in self.input_shapes if shape), 1)
        return batch.values if type(batch) is FreeSize else (1,)

    def shape(self, index: int) -> Shape | None:
        """Return the shape of an entry's tensor, with a `FreeSize` for each size that follows the inputs."""
        if index not in self._shapes:
            self._shapes[index] = self._shape(index)
        return self._shapes[index]

    def items(self, index: int) -> tuple[Shape | None, ...] | None:
        """Return the same for the shapes of several results."""
        return self._outcome(index, lambda outcome: outcome.items)

    def arguments(self, index: int) -> Joined:
        """Return the arguments of an entry, with a `FreeSize` for each integer that follows the inputs.

        Raises:
            SizeError: something else follows sizes.
        """
        if index not in self._joined:
            self._joined[index] = self._arguments(index)
        return self._joined[index]

    def resolved(self, expression: Expression) -> Formula:
        """Return an expression of the recording as a formula; where all its sizes are fixed, its value."""
        if isinstance(expression, EntrySize):
            shape = self.shape(expression.index)
            assert shape is not None
            size = shape[expression.dim]
            return SizeOf(Ref(expression.index), expression.dim, size.values) if type(size) is FreeSize else int(size)
        if not isinstance(expression, tuple):
            return expression
        operands = tuple(map(self.resolved, expression[1:]))
        if any(isinstance(operand, (tuple, SizeOf)) for operand in operands):
            return (expression[0], *operands)
        value: float = OPERATORS[expression[0]].function(*operands)
        return value

    def is_folded(self, index: int) -> bool:
        """Tell whether an entry is one constant tensor, of the same value at all sizes."""
        if index not in self._folded:
            self._folded[index] = index not in self.unfolded and self._has_one_value(index)
        return self._folded[index]

    def constant_claims(self, index: int) -> tuple[Claim, ...]:
        """Return the claims that the numbers from which a constant tensor was made stay what they are."""
        claims: list[Claim] = []
        stack, seen = [index], {index}
        while stack:
            index = stack.pop()
            entry = self.recording.entries[index]
            seen_at_all = map_together(self._all_given(index), _Seen)
            claims += (c for leaf in leaves(seen_at_all) for c in self._claims(entry, leaf.values))
            fresh = [operand for operand in self.recording.entries[index].operands if operand not in seen]
            seen.update(fresh)
            stack.extend(fresh)
        return tuple(claims)

    def _has_one_value(self, index: int) -> bool:
        value = self.recording.entries[index].outcome.tensor
        others = self.others if self.twin is None else (self.twin.recording, *self.others)
        found = [other.entries[index].outcome.tensor for other in others]
        return value is not None and all(other is not None and same_tensor(value, other) for other in found)

    def _outcome(self, index: int, pick: Callable[[Outcome], T]) -> T:
        return self._seen_by(lambda recording: pick(recording.entries[index].outcome))

    def _seen_by(self, pick: Callable[[Recording], T]) -> T:
        """Return what ``pick`` finds, with a `FreeSize` for each integer that differs."""
        found = [pick(recording) for recording in self.recordings]
        if found.count(found[0]) == len(found):
            return found[0]
        joined: T = map_together(found, self._leaf)
        return joined

    def _shape(self, index: int) -> Shape | None:
        """Do what `_seen_by` does, quickly."""
        shapes = [recording.entries[index].outcome.shape for recording in self.recordings]
        first = shapes[0]
        if shapes.count(first) == len(shapes):
            return first
        known = [shape for shape in shapes if shape is not None]
        if first is None or {len(shape) for shape in known} != {len(first)} or len(known) < len(shapes):
            return self._outcome(index, lambda outcome: outcome.shape)
        return tuple([_size(sizes) for sizes in zip(*known, strict=True)])

    def _arguments(self, index: int) -> Joined:
        entry = self.recording.entries[index]
        if self.twin is not None:
            joined, claims = self.twin.arguments(index)
            return Joined(map_pairs(joined, _given(entry), _free_or_own), claims)
        if not entry.has_expressions and all(_given(o.entries[index]) == _given(entry) for o in self.others):
            return Joined(_given(entry), ())
        found: list[Claim] = []

        def join(seen: tuple[Argument, ...]) -> Argument:
            if type(seen[0]) in SETTLED:
                found.extend(self._claims(entry, seen))
            return self._leaf(seen)

        try:
            return Joined(map_together(self._all_given(index), join), tuple(found))
        except SizeError as error:
            message = f"{error}, in {entry.name} at {entry.origin.source}"
            raise SizeError(message) from error

    def _all_given(self, index: int) -> list[Given]:
        return [_given(recording.entries[index]) for recording in self.recordings]

    def _claims(self, entry: Entry, seen: tuple[Argument, ...]) -> Iterator[Claim]:
        """Yield what a constant of a call rests on that was computed from sizes, but never differed."""
        value = seen[0]
        if isinstance(value, (SettledInt, SettledFloat)) and _is_one(plain(seen)):
            yield Claim(self.resolved(value.expression), plain(value), entry.origin.source)

    def _leaf(self, seen: tuple[Argument, ...]) -> Argument:
        """Return the one value of a place, or a `FreeSize`."""
        first = seen[0]
        if type(first) in _ATOMS and seen.count(first) == len(seen):
            return first
        if isinstance(first, Ref):
            return first
        if isinstance(first, (tuple, list, dict, slice)):
            message = "an argument of a call has another structure at other input sizes"
            raise SizeError(message)
        values = plain(seen)
        if _is_one(values):
            return values[0]
        numbers = tuple(value for value in values if type(value) is int)
        if len(numbers) == len(values):
            expression = getattr(first, "expression", None)
            return FreeSize.make(numbers, None if expression is None else self.resolved(expression))
        message = f"a constant of a call is {listed(values)}"
        raise SizeError(message)


def _size(sizes: tuple[int, ...]) -> int:
    return sizes[0] if sizes.count(sizes[0]) == len(sizes) else FreeSize.make(sizes)


def _given(entry: Entry) -> Given:
    return entry.args, entry.keywords


def _is_one(values: tuple[Argument, ...]) -> bool:
    return all(equal(value, values[0]) for value in values[1:])


def _free_or_own(joined: Argument, own: Argument) -> Argument:
    """Return what training has at one place, given what evaluation has there at all sizes."""
    return joined if type(joined) is FreeSize and int(joined) == own else plain(own)


def same_tensor(a: Tensor, b: Tensor) -> bool:
    """Tell whether two tensors have the same shape, type and values."""
    if a is b or (a.shape, a.dtype) != (b.shape, b.dtype) or a.is_meta or b.is_meta:
        return a is b
    return torch.allclose(a, b, 0, 0, equal_nan=True)
