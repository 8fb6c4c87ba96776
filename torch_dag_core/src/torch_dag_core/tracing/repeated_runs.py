"""Refusal of models that keep state from one call to the next in places that a graph does not have.

A graph has buffers. A model may also count its calls in an attribute, or keep tensors in a dict, a closure or a global
variable. That is harmless for statistics, and for caches whose content is the same at each call, but not where it
decides what the next call computes. To tell them apart, a run that changed such state is repeated from the state that
it left, and both recordings are compared as functions of inputs, parameters and buffers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeGuard, cast

from torch import nn

from torch_dag_core.errors import TorchDagError, TraceError
from torch_dag_core.tracing.location import USE_ATOMIC
from torch_dag_core.tracing.outside_draws import LineOfUse, OutsideDraws
from torch_dag_core.tracing.recorder import Recorder
from torch_dag_core.tracing.recording import Recording
from torch_dag_core.tracing.restoring import undoing
from torch_dag_core.tracing.signature import Signature, Signatures
from torch_dag_core.tracing.snapshot import Change, Snapshot
from torch_dag_core.tracing.sources import Source, generator_source, is_generator, is_global
from torch_dag_core.tracing.tracker import Tracker

_MANY_CALLS = 1_000_000
_SHOWN = 3


class RepeatedRuns:
    """Records a model whose next call computes the same as this one, and refuses others.

    Args:
        start: Returns a recorder of the model as it is, given the tracker of the run before; None at the first run.
        run: Runs the model under a recorder.
        snapshot: One of the model, which is marked before the first run.
        modules: Every module of the model with its path, before the first run.
        draws: Watches what the model asks of its surroundings.
    """

    def __init__(
        self, start: Callable[[Tracker | None], Recorder], run: Callable[[Recorder], Recording], snapshot: Snapshot,
        modules: Sequence[tuple[str, nn.Module]], draws: OutsideDraws,
    ) -> None:  # fmt: skip
        self._start, self._run, self._snapshot, self._draws = start, run, snapshot, draws
        self._modules, self._signatures = modules, Signatures(modules)
        self._recorders: list[Recorder] = []

    def record(self, *, repeats: bool = False) -> Recording:
        """Return the recording of the first run, with the conditions on the caller under which it is right.

        Args:
            repeats: Whether the model runs once more even if it used and changed nothing that was seen.

        Raises:
            TraceError: the model fails, or computes something else from the state that its first run left behind, or
                with other answers from its surroundings, such as random numbers of Python.
        """
        with undoing(self._forget):
            return self._checked(repeats=repeats)

    def _checked(self, *, repeats: bool) -> Recording:
        self._snapshot.mark()
        self._draws.mark()
        recording = self._next()
        changes = [*self._snapshot.changes(), *self._overwritten()]
        drawn = [*self._draws.used(), *_held_sources(changes)]
        if not drawn and not changes and not repeats:
            return recording
        first = self._signatures.of(recording)
        for advice in dict.fromkeys(source.advice for source in drawn if not source.conditions()):
            sources = [source for source in drawn if source.advice == advice and not source.conditions()]
            self._refuse_followed(recording, sources)
        conditions = {*recording.conditions, *self._conditions(recording, drawn)}
        if changes:
            self._compare(first, changes)
            if _count_on(changes):
                self._compare(first, changes)
        elif repeats and not (recording.written and recording.escapes):
            self._repeat(recording)
        return replace(recording, conditions=tuple(sorted(conditions, key=repr))) if conditions else recording

    def _forget(self) -> None:
        for recorder in self._recorders:
            recorder.tracker.forget()

    def _next(
        self, trial: int | None = None, sources: Sequence[Source] = (), line: LineOfUse | None = None
    ) -> Recording:
        self._snapshot.settings.start_run()
        for source in sources:
            if trial is not None:
                source.steer(trial)
        recorder = self._start(self._recorders[-1].tracker if self._recorders else None)
        self._recorders.append(recorder)
        try:
            with self._draws.watched(), contextlib.nullcontext() if line is None else line.watching():
                return self._run(recorder)
        finally:
            recorder.pause.stay()  # sizes that the model stored somewhere may still be compared

    def _compare(self, first: Signature, changes: Sequence[Change]) -> None:
        """Run the model again from the state that the last run left."""
        try:
            same = self._signatures.of(self._next()) == first
        except TorchDagError as error:
            raise TraceError(_complaint(changes)) from error
        if not same:
            raise TraceError(_complaint(changes))

    def _repeat(self, first: Recording) -> None:
        """Run the model again, and refuse one that computes something else although nothing is known to differ."""
        again = self._next()
        if self._signatures.of(again) == self._signatures.of(first):
            return
        entry = self._signatures.first_difference(first, again)
        place = "in what it returns" if entry is None else f"at {entry.origin.source}"
        message = (
            f"the model computes something else each time it is called with the same inputs, first {place}; "
            f"a graph would repeat what it computed once: draw numbers by torch (torch.rand), or {USE_ATOMIC}"
        )
        raise TraceError(message)

    def _conditions(self, first: Recording, drawn: Sequence[Source]) -> Iterator[tuple[Any, ...]]:
        """Yield what has to hold of the caller for the first run to be right, source by source."""
        for source in drawn:
            conditions = source.conditions()
            for trial in range(source.trials if conditions else 0):
                other = self._followed(trial, [source])
                if other is None or not self._is_same(first, other, [source]):
                    yield from conditions
                else:
                    yield from other.conditions

    def _followed(self, trial: int, sources: Sequence[Source]) -> Recording | None:
        """Return the recording with other answers from sources; None where the model fails then."""
        try:
            return self._next(trial, sources)
        except TorchDagError:
            return None

    def _is_same(self, first: Recording, other: Recording, sources: Sequence[Source]) -> bool:
        signatures = self._signatures
        if not all(source.follows_gradients for source in sources):
            signatures = Signatures(self._modules, follows_gradients=False)
        return signatures.of(first) == signatures.of(other)

    def _refuse_followed(self, first: Recording, sources: Sequence[Source]) -> None:
        """Run the model again with other answers from each source.

        Raises:
            TraceError: it computes something else then.
        """
        for trial in range(max(source.trials for source in sources)):
            other = self._followed(trial, sources)
            if other is None or not self._is_same(first, other, sources):
                names, line = " and ".join(source.name for source in sources), self._line_of(trial, sources)
                message = f"the model computes with {names}, at {line}, {sources[0].advice}, or {USE_ATOMIC}"
                raise TraceError(message)

    def _line_of(self, trial: int, sources: Sequence[Source]) -> str:
        """Return ``file:line`` of the first use of sources in one more run."""
        line = LineOfUse(sources)
        with contextlib.suppress(TorchDagError):
            self._next(trial, sources, line)
        return line.found or "a line that is unknown"

    def _overwritten(self) -> Iterator[Change]:
        for tensor in self._recorders[-1].overwritten:
            yield Change(self._snapshot.path_of(tensor) or "a tensor outside of the model")


def _held_sources(changes: Iterable[Change]) -> Iterator[Source]:
    """Yield the generators among the objects that a run changed, except for the global ones."""
    found = {id(change.container): change for change in changes if is_generator(change.container)}
    for change in found.values():
        if not is_global(change.container):
            yield generator_source(f"numbers from the generator {change.path.partition('[')[0]}", change.container)


def _count_on(changes: Sequence[Change]) -> bool:
    """Set every number that a run changed to its value after many runs, for decisions that come late."""
    found = False
    for change in changes:
        old, new = change.old, change.new
        if _is_number(old) and _is_number(new) and isinstance(change.container, (dict, list)):
            cast("dict[Hashable, float]", change.container)[change.key] += (new - old) * _MANY_CALLS
            found = True
    return found


def _is_number(value: object) -> TypeGuard[float]:
    return type(value) in (int, float)


def _complaint(changes: Sequence[Change]) -> str:
    paths = list(dict.fromkeys(change.path for change in changes))
    names = ", ".join(paths[:_SHOWN]) + (f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else "")
    return (
        f"the model changes {names} in its forward, and computes something else at the next call because of that; "
        f"make it a buffer (register_buffer), or {USE_ATOMIC}"
    )
