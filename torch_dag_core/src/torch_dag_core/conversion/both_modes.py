"""A model's recordings in evaluation and in training, joined: calls that both make stand once.

Everything here reads recordings and returns something new; no recording is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TypeAlias

from torch_dag_core.conversion.folding import needed_by
from torch_dag_core.conversion.joining import ByMode, FreeSize, Sizes, equal, same_calls
from torch_dag_core.errors import TraceError
from torch_dag_core.graph.nested import leaves, map_leaves, map_pairs
from torch_dag_core.tracing.recording import Argument, Entry, Input, Recording, Ref, Scalar, Shape

Joined: TypeAlias = "Ref | Scalar | ByMode[Joined] | slice | tuple[Joined, ...] | list[Joined] | dict[str, Joined]"
"""An argument of a joined call."""
Arguments: TypeAlias = "tuple[tuple[Joined, ...], Mapping[str, Joined]]"
"""By position and by name."""


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
    args: tuple[Joined, ...]
    keywords: Mapping[str, Joined]
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
        args, keywords = ((), {}) if is_folded else self._arguments(step)
        return JoinedCall(
            entry=entry, is_folded=is_folded, training_only=step.evaluation is None, args=args, keywords=keywords,
            items=sizes.items(index), shape=sizes.shape(index),
        )  # fmt: skip

    def _arguments(self, step: Step) -> Arguments:
        first, second = self._numbers
        if step.evaluation is None:
            assert step.training is not None
            return _numbered(self.training.arguments(step.training), second)
        arguments = self.evaluation.arguments(step.evaluation)
        if step.training is None:
            return _numbered(arguments, first)
        entry = self.training.recording.entries[step.training]

        def by_mode(value: Joined, other: Joined) -> Joined:
            if isinstance(value, Ref) and isinstance(other, Ref):
                a, b = Ref(first[value.index]), Ref(second[other.index])
                return a if a == b else ByMode(a, b)
            if any(isinstance(leaf, Ref) for leaf in leaves((value, other))):
                message = f"{entry.name!r} at {entry.origin.source} takes other tensors in training than in evaluation"
                raise TraceError(message)
            return value if equal(value, other) else ByMode(map_leaves(value, _without_other), other)

        joined: Arguments = map_pairs(arguments, (entry.args, entry.keywords), by_mode)
        return joined


def _numbered(arguments: tuple[tuple[Argument, ...], Mapping[str, Argument]], numbers: Mapping[int, int]) -> Arguments:
    """Return arguments that refer to joined calls instead of one mode's entries."""
    joined: Arguments = map_leaves(arguments, lambda leaf: Ref(numbers[leaf.index]) if isinstance(leaf, Ref) else leaf)
    return joined


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
