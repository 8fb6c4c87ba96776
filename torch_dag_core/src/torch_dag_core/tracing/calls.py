"""Calls made and recorded at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_dag_core.tracing.autocasting import AutocastBlocks
from torch_dag_core.tracing.execution import CREATION, run
from torch_dag_core.tracing.location import Location
from torch_dag_core.tracing.pause import Pause, WithoutGradient
from torch_dag_core.tracing.randomness import Randomness
from torch_dag_core.tracing.recording import Entry, FunctionCall, Live, Outcome, Pick, Ref
from torch_dag_core.tracing.settled import plain
from torch_dag_core.tracing.tape import Tape
from torch_dag_core.tracing.tensors import shape_of, storage_of, tensors_in, version_of, with_refs
from torch_dag_core.tracing.tracker import Tracker, View, outcome_of
from torch_dag_core.tracing.writes import Writes


@dataclass(eq=False, slots=True)
class Invocation:
    """A call that is about to be made.

    Attributes:
        entry: What is called, without arguments and outcome.
        args, keywords: Arguments as they are recorded; numbers computed from sizes keep their expression.
        execute: Makes the call.
        is_random: Whether the result is drawn, at least in part.
        may_write: Whether the call may change constants among its arguments.
        state: Tensors besides the arguments that the call may change.
    """

    entry: Entry
    args: tuple[Live, ...]
    keywords: dict[str, Live]
    execute: Callable[[], Live]
    is_random: bool
    may_write: bool
    state: tuple[Tensor, ...] = ()

    @property
    def takes_statistics(self) -> bool:
        """Whether a batch norm updates running statistics, which are its second and third argument."""
        return self.entry.name == "batch_norm" and self.keywords.get("training") is True and self.args[1] is not None


class Calls:
    """Makes calls with recording paused, and records what they read, gave and changed.

    Attributes:
        blocks: Where the model switches autocast on or off.
    """

    def __init__(
        self, tape: Tape, tracker: Tracker, write: Writes, location: Location, pause: Pause, randomness: Randomness
    ) -> None:  # fmt: skip
        self._tape, self._tracker, self._writes = tape, tracker, write
        self._location, self._pause, self._randomness = location, pause, randomness
        self.blocks = AutocastBlocks()

    def make(self, call: Invocation) -> Live:
        """Make a call and record it."""
        if not self.blocks.is_all:
            self._location.fail("the model switches autocast other than by a block, which a graph leaves to its caller")
        tensors = tensors_in(call.args, call.keywords)
        self.blocks.computed(call.entry.name if isinstance(call.entry, FunctionCall) else "module", tensors)
        refs = self._tracker.refs(tensors)
        bases = {id(tensor): self._writes.bases(tensor) for tensor in tensors}
        if call.may_write:
            self._writes.prepare(tensors)
        if call.is_random:
            self._randomness.check()
        before, state = _versions(tensors), _versions(call.state)
        with self._pause, WithoutGradient(), torch._C._DisableAutocast() if self.blocks else contextlib.nullcontext():
            result = call.execute()
            written = _changed(before)
            if not written:
                result = _distinct(result, tensors)
        self._randomness.note()
        name = call.entry.name
        is_constant = not call.is_random and (name in CREATION or self._tape.all_constant(list(refs.values())))
        ref = self._tape.append(call.entry.made(
            args=with_refs(call.args, refs), outcome=_outcome(result, is_constant),
            keywords=with_refs(call.keywords, refs),
            changes_state=call.takes_statistics or bool(_changed(state)),
        ))  # fmt: skip
        self._attach(result, ref, call, tensors, refs, is_constant)
        if written:
            self._writes.follow(written, ref, name, result, bases)
        return result

    def set_item(self, args: tuple[Live, ...]) -> None:
        """Make and record ``args[0][args[1]] = args[2]``."""
        target, items, value = args
        assert isinstance(target, Tensor)
        refs = self._tracker.refs(tensors_in(args))
        bases = self._writes.bases(target)
        self._writes.prepare([target])
        with self._pause, WithoutGradient():
            run(Tensor.__setitem__, "__setitem__", plain(args), {})
        self._writes.set_item(target, items, value, refs, bases)

    def _attach(  # noqa: PLR0913, PLR0917
        self, result: Live, ref: Ref, call: Invocation, operands: list[Tensor], refs: dict[int, Ref],
        is_constant: bool, item: int | None = None,  # noqa: FBT001
    ) -> None:  # fmt: skip
        """Make the entry the value of a tensor, or a `Pick` that of each of several, however nested."""
        if isinstance(result, Tensor) and id(result) not in refs:
            self._tracker.own(result, ref, _view_of(result, ref, call, operands, refs, item))
        if not isinstance(result, (tuple, list)):
            return
        for place, value in enumerate(result):
            if isinstance(value, (Tensor, tuple, list)):
                origin, outcome = self._location.origin(), _outcome(value, is_constant)
                picked = Pick(name="getitem", origin=origin, outcome=outcome, index=place, args=(ref,))
                self._attach(value, self._tape.append(picked), call, operands, refs, is_constant, place)


def _view_of(
    tensor: Tensor, ref: Ref, call: Invocation, operands: list[Tensor], refs: dict[int, Ref], item: int | None
) -> View | None:  # fmt: skip
    """Return which operand of the call a fresh tensor is a view of, if any."""
    storage = storage_of(tensor)
    base = next((operand for operand in operands if storage_of(operand) == storage), None)
    if base is None:
        return None
    first = next((place for place, argument in enumerate(call.args) if argument is base), None)
    rest = tuple(argument for place, argument in enumerate(call.args) if place != first)
    return View(base, refs[id(base)], ref, call.entry.name, rest, call.keywords, item)


def _outcome(result: Live, is_constant: bool) -> Outcome:  # noqa: FBT001
    if isinstance(result, Tensor):
        return outcome_of(result, is_constant)
    items = tuple(map(shape_of, result)) if isinstance(result, (tuple, list)) else None
    return Outcome(items=items, is_constant=is_constant)


def _distinct(result: Live, tensors: list[Tensor]) -> Live:
    """Return ``result`` with an alias in place of every operand that was handed back as it is."""
    operands = {id(tensor) for tensor in tensors}
    if isinstance(result, Tensor):
        alias: Tensor = torch.ops.aten.alias.default(result) if id(result) in operands else result
        return alias
    if type(result) is tuple:
        return tuple(_distinct(item, tensors) for item in result)
    if type(result) is list:
        return [_distinct(item, tensors) for item in result]
    return result


def _versions(tensors: list[Tensor] | tuple[Tensor, ...]) -> list[tuple[Tensor, int | None]]:
    return [(tensor, version_of(tensor)) for tensor in tensors]


def _changed(versions: list[tuple[Tensor, int | None]]) -> list[Tensor]:
    return [tensor for tensor, version in versions if version_of(tensor) != version]
