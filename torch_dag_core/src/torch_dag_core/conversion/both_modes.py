"""A model's recordings in evaluation and in training, joined: calls that both make stand once.

Everything here reads recordings and returns something new; no recording is changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import NamedTuple, TypeAlias

from torch_dag_core.conversion.folding import needed_by
from torch_dag_core.conversion.free_sizes import Claim, FreeSize
from torch_dag_core.conversion.joining import ByMode, Joined, Sizes, equal, same_calls, same_tensor
from torch_dag_core.errors import TraceError
from torch_dag_core.graph.nested import leaves, map_leaves, map_pairs
from torch_dag_core.tracing.recording import Argument, Entry, Input, ModuleCall, Recording, Ref, Scalar, Shape, ref_to

JoinedArgument: TypeAlias = (
    "Ref | Scalar | ByMode[JoinedArgument] | slice | tuple[JoinedArgument, ...] | list[JoinedArgument]"
    " | dict[str, JoinedArgument]"
)
"""An argument of a joined call."""
Arguments: TypeAlias = "tuple[tuple[JoinedArgument, ...], Mapping[str, JoinedArgument]]"
"""By position and by name."""
_NO_ARGUMENTS: Arguments = (), {}


@dataclass(frozen=True, eq=False, kw_only=True)
class JoinedCall:
    """One call, input or held tensor as the graph will have it, made in one mode or in both.

    Attributes:
        entry: As it was recorded, in evaluation where both modes have it.
        is_folded: Whether the value is the constant ``entry.outcome.tensor``; then nothing else counts.
        training_only: Whether evaluation does not have it.
        args, keywords: ``Ref(i)`` is the value of joined call number ``i``. An integer that follows the input sizes
            is a `FreeSize`; whatever differs between the modes, references included, is a `ByMode`.
        claims: What the constants among the arguments, or in the making of a folded value, rest on.
        shape: Of the tensor, with a `FreeSize` for each size that follows the inputs.
        items: The same of several results.
    """

    entry: Entry
    is_folded: bool
    training_only: bool
    args: tuple[JoinedArgument, ...]
    keywords: Mapping[str, JoinedArgument]
    claims: tuple[Claim, ...]
    shape: Shape | None
    items: tuple[Shape | None, ...] | None


class Step(NamedTuple):
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
        (args, keywords), claims = (_NO_ARGUMENTS, sizes.constant_claims(index)) if is_folded else self._arguments(step)
        return JoinedCall(
            entry=entry, is_folded=is_folded, training_only=step.evaluation is None, args=args, keywords=keywords,
            claims=claims, items=sizes.items(index), shape=sizes.shape(index),
        )  # fmt: skip

    def _arguments(self, step: Step) -> tuple[Arguments, tuple[Claim, ...]]:
        joined = [
            None if index is None else _numbered(sizes.arguments(index), numbers)
            for index, sizes, numbers in zip(step, (self.evaluation, self.training), self._numbers, strict=True)
        ]
        first, second = joined
        if first is None or second is None:
            only = first or second
            assert only is not None
            return only
        assert step.training is not None
        entry = self.training.recording.entries[step.training]

        def by_mode(value: JoinedArgument, other: JoinedArgument) -> JoinedArgument:
            if isinstance(value, Ref) and isinstance(other, Ref):
                return value if value == other else ByMode(value, other)
            if any(isinstance(leaf, Ref) for leaf in leaves((value, other))):
                message = f"{entry.name!r} at {entry.origin.source} takes other tensors in training than in evaluation"
                raise TraceError(message)
            return value if equal(value, other) else ByMode(value, other)

        merged: Arguments = map_pairs(first[0], second[0], by_mode)
        return merged, (*first[1], *second[1])


def _numbered(joined: Joined, numbers: Mapping[int, int]) -> tuple[Arguments, tuple[Claim, ...]]:
    """Return arguments that refer to joined calls instead of one mode's entries."""

    def number(ref: Ref) -> Ref | None:
        return ref_to(numbers[ref.index]) if ref.index in numbers else None

    def renumbered(leaf: Argument) -> Argument:
        if isinstance(leaf, Ref):
            return ref_to(numbers[leaf.index])
        return leaf.about(number) if isinstance(leaf, FreeSize) else leaf

    arguments: Arguments = map_leaves(joined.arguments, renumbered)
    return arguments, joined.claims


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
    """Yield what is live of a step; both modes together only if both need it, and one vertex can stand for both."""
    first, second = step.evaluation, step.training
    in_first, in_second = first in live[0], second in live[1]
    if first is not None and second is not None and in_first and in_second:
        yield from (
            (step,) if _is_alike(first, second, evaluation, training) else (Step(first, None), Step(None, second))
        )
        return
    if in_first:
        yield Step(first, None)
    if in_second:
        yield Step(None, second)


def _is_alike(first: int, second: int, evaluation: Sizes, training: Sizes) -> bool:
    """Tell whether one vertex can stand for an entry of each mode.

    Both have to be the same constant, or none; and what calls make of arguments alone has one shape in the graph, the
    recorded one, so calls that give another shape in training stand apart. Layers do not: modules, and batch norms that
    update statistics, take the shape from their operand, and apart they would not share the statistics.
    """
    one, other = evaluation.recording.entries[first], training.recording.entries[second]
    values = one.outcome.tensor, other.outcome.tensor
    if evaluation.is_folded(first) and training.is_folded(second):
        return values[0] is not None and values[1] is not None and same_tensor(values[0], values[1])
    shapes = [(entry.outcome.shape, entry.outcome.items) for entry in (one, other)]
    same_shapes = shapes[0] == shapes[1] or isinstance(one, ModuleCall) or other.changes_state
    return same_shapes and evaluation.is_folded(first) == training.is_folded(second)


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
