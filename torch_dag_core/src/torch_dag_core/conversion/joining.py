"""Recordings of one model held side by side: what differs with size is free, what differs with mode switches.

Everything here reads recordings and returns something new; no recording is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Generic, NoReturn, TypeVar

import torch
from torch import Tensor

from torch_dag_core.conversion.folding import needed_by
from torch_dag_core.errors import TraceError
from torch_dag_core.graph.nested import leaves, map_leaves, map_pairs
from torch_dag_core.tracing.recording import Argument, Entry, Input, Recording, Ref, Shape

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
    if isinstance(value, Ref) or _equal(value, other):
        return value
    if type(value) is int and type(other) is int:
        return FreeSize.make(value, other)
    message = f"a constant of a call is {value!r} at one input size and {other!r} at another"
    raise SizeError(message)


def _equal(a: Argument, b: Argument) -> bool:
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
    return a is b or (a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, 0, 0, equal_nan=True))


@dataclass(frozen=True, eq=False, kw_only=True)
class JoinedCall:
    """One call, input or held tensor as the graph will have it, made in one mode or in both.

    Attributes:
        entry: As it was recorded, in evaluation where both modes have it.
        is_folded: Whether the value is the constant ``entry.outcome.tensor``; then nothing else counts.
        training_only: Whether evaluation does not have it.
        args, keywords: ``Ref(i)`` is the value of joined call number ``i``. An integer that follows the input sizes
            is a `FreeSize`; whatever differs between the modes, references included, is a `ByMode`.
        shape: Of the tensor, with a `FreeSize` for each size that follows the inputs.
        items: The same of several results.
    """

    entry: Entry
    is_folded: bool
    training_only: bool
    args: tuple[Argument, ...] = ()
    keywords: Mapping[str, Argument]
    shape: Shape | None
    items: tuple[Shape | None, ...] | None


@dataclass(frozen=True)
class Step:
    """A joined call before its arguments are joined: the numbers of its entries, None where a mode lacks it."""

    evaluation: int | None
    training: int | None


@dataclass(frozen=True, eq=False)
class JoinedModel:
    """What a model does in both modes: its calls in one order, without those that nothing needs.

    Attributes:
        evaluation, training: The modes.
        steps: What the calls are made of, in order.
        unread: Numbers of calls that are needed for the state that they change alone.
    """

    evaluation: Sizes
    training: Sizes
    steps: tuple[Step, ...]
    unread: tuple[int, ...]
    _numbers: tuple[Mapping[int, int], Mapping[int, int]]

    @property
    def outputs(self) -> tuple[int, ...]:
        """Numbers of the calls that the model returns in evaluation."""
        return tuple(self._numbers[0][index] for index in self.evaluation.recording.outputs)

    @property
    def training_outputs(self) -> tuple[int, ...]:
        """Numbers of the calls that the model returns in training."""
        return tuple(self._numbers[1][index] for index in self.training.recording.outputs)

    def calls(self) -> Iterator[JoinedCall]:
        """Yield the joined calls, each joined only when it is asked for: the first that cannot be is reported first.

        Raises:
            SizeError: an argument follows the input sizes in a way that a graph cannot state.
            TraceError: a call takes other tensors in training.
        """
        return map(self._join, self.steps)

    def _join(self, step: Step) -> JoinedCall:
        sizes, index = (self.training, step.training) if step.evaluation is None else (self.evaluation, step.evaluation)
        assert index is not None
        entry = sizes.recording.entries[index]
        is_folded = sizes.is_folded(index)
        args: tuple[Argument, ...] = ()
        keywords: Mapping[str, Argument] = {}
        if not is_folded:
            args, keywords = self._arguments(step)
        return JoinedCall(
            entry=entry, is_folded=is_folded, training_only=step.evaluation is None, args=args, keywords=keywords,
            items=sizes.items(index), shape=sizes.shape(index),
        )  # fmt: skip

    def _arguments(self, step: Step) -> tuple[tuple[Argument, ...], Mapping[str, Argument]]:
        first, second = self._numbers
        if step.evaluation is None:
            assert step.training is not None
            return _numbered(self.training.arguments(step.training), second)
        arguments = self.evaluation.arguments(step.evaluation)
        if step.training is None:
            return _numbered(arguments, first)
        entry = self.training.recording.entries[step.training]

        def by_mode(value: Argument, other: Argument) -> Argument | ByMode[Argument]:
            if isinstance(value, Ref) and isinstance(other, Ref):
                a, b = Ref(first[value.index]), Ref(second[other.index])
                return a if a == b else ByMode(a, b)
            if any(isinstance(leaf, Ref) for leaf in leaves((value, other))):
                message = f"{entry.name!r} at {entry.origin.source} takes other tensors in training than in evaluation"
                raise TraceError(message)
            return value if _equal(value, other) else ByMode(map_leaves(value, _without_other), other)

        joined: tuple[tuple[Argument, ...], Mapping[str, Argument]] = map_pairs(
            arguments, (entry.args, entry.keywords), by_mode
        )
        return joined


def _numbered(
    arguments: tuple[tuple[Argument, ...], Mapping[str, Argument]], numbers: Mapping[int, int]
) -> tuple[tuple[Argument, ...], Mapping[str, Argument]]:
    renumbered: tuple[tuple[Argument, ...], Mapping[str, Argument]] = map_leaves(
        arguments, lambda leaf: Ref(numbers[leaf.index]) if isinstance(leaf, Ref) else leaf
    )
    return renumbered


def _without_other(leaf: Argument) -> Argument:
    return int(leaf) if type(leaf) is FreeSize else leaf


def join_modes(evaluation: Sizes, training: Sizes) -> JoinedModel:
    """Return the calls of both modes in one order; calls that both make stand once."""
    modes = (evaluation, training)
    wanted = [_wanted(sizes.recording) for sizes in modes]
    read = [needed_by(numbers, sizes) for numbers, sizes in zip(wanted, modes, strict=True)]
    changes = [
        [i for i, entry in enumerate(sizes.recording.entries) if entry.changes_state and i not in needed]
        for sizes, needed in zip(modes, read, strict=True)
    ]
    live = [needed | needed_by(c, sizes) for needed, c, sizes in zip(read, changes, modes, strict=True)]
    steps: list[Step] = []
    for step in _aligned(evaluation.recording, training.recording):
        steps += _split(step, evaluation, training, live)
    numbers = (
        {step.evaluation: number for number, step in enumerate(steps) if step.evaluation is not None},
        {step.training: number for number, step in enumerate(steps) if step.training is not None},
    )
    unread = tuple(number_of[i] for number_of, indices in zip(numbers, changes, strict=True) for i in indices)
    return JoinedModel(evaluation, training, tuple(steps), unread, numbers)


def _wanted(recording: Recording) -> list[int]:
    """List what has to be there in any case: inputs, outputs, and new values of buffers."""
    inputs = [i for i, entry in enumerate(recording.entries) if isinstance(entry, Input)]
    writes = [i for numbers in recording.written.values() for i in numbers]
    return [*inputs, *recording.outputs, *writes]


def _split(step: Step, evaluation: Sizes, training: Sizes, live: list[set[int]]) -> Iterator[Step]:
    """Yield what is live of a step; both modes together only if both need it, and take it for a constant or neither."""
    first, second = step.evaluation, step.training
    in_first, in_second = first in live[0], second in live[1]
    if first is not None and second is not None and in_first and in_second:
        alike = evaluation.is_folded(first) == training.is_folded(second)
        yield from (step,) if alike else (Step(first, None), Step(None, second))
        return
    if in_first:
        yield Step(first, None)
    if in_second:
        yield Step(None, second)


def _aligned(evaluation: Recording, training: Recording) -> Iterator[Step]:
    """Yield the entries of both modes in one order."""
    first, second = evaluation.entries, training.entries
    if same_calls(evaluation, training):
        yield from map(Step, range(len(first)), range(len(second)))
        return
    keys = [[_Key(entry.signature) for entry in entries] for entries in (first, second)]
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_opcodes():
        if tag == "equal":
            yield from map(Step, range(i1, i2), range(j1, j2))
            continue
        yield from (Step(i, None) for i in range(i1, i2))
        yield from (Step(None, j) for j in range(j1, j2))


class _Key:
    """A signature that hashes once."""

    def __init__(self, content: object) -> None:
        self._content, self._hash = content, hash(content)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._content == other._content
