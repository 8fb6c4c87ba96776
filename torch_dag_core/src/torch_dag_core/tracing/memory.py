"""State that a model keeps from one call to the next in places that a graph does not have.

A graph has buffers. A model may also count calls in an attribute, or keep tensors in a dict, a closure or a global:
harmless for statistics and for caches, whose content is the same at each call, but not where it decides what the next
call computes. To tell them apart, a run that changed such state is repeated from the state that it left, and both
recordings are compared as functions of inputs, parameters and buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch_dag_core.errors import TorchDagError, TraceError
from torch_dag_core.tracing.ledger import USE_ATOMIC
from torch_dag_core.tracing.recorder import Recorder
from torch_dag_core.tracing.signature import Signatures
from torch_dag_core.tracing.snapshot import Change, Snapshot

_MANY_CALLS = 1_000_000
_SHOWN = 3


class Recording:
    """Records a model whose next call computes the same as this one, and refuses others.

    Args:
        make: Returns a recorder of the model as it is.
        run: Runs the model under a recorder; returns the template of the output.
        snapshot: Marked with the state before the first run.
    """

    def __init__(
        self, make: Callable[[], Recorder], run: Callable[[Recorder], Any], snapshot: Snapshot, signatures: Signatures
    ) -> None:
        self._make, self._run, self._snapshot, self._signatures = make, run, snapshot, signatures
        self._recorders: list[Recorder] = []

    def record(self) -> tuple[Recorder, Any]:
        """Return the recorder of the first run, and the template of its output.

        Raises:
            TraceError: the model fails, or computes something else from the state that its first run left behind.
        """
        try:
            recorder, template = self._next()
            changes = [*self._snapshot.changes(), *self._overwritten(recorder)]
            if changes:
                first = self._signatures.of(recorder, template)
                self._compare(first, changes)
                if _count_on(changes):
                    self._compare(first, changes)
            recorder.settle()
            return recorder, template
        finally:
            for used in self._recorders:
                used.close()

    def _next(self) -> tuple[Recorder, Any]:
        self._snapshot.settings.start_run()
        recorder = self._make()
        recorder.hold = self._snapshot.hold
        recorder.earlier = self._recorders[-1] if self._recorders else None
        self._recorders.append(recorder)
        try:
            return recorder, self._run(recorder)
        finally:
            recorder.stop()

    def _compare(self, first: tuple[Any, ...], changes: Sequence[Change]) -> None:
        """Run the model again from the state it left."""
        try:
            same = self._signatures.of(*self._next()) == first
        except TorchDagError as error:
            raise TraceError(_complaint(changes)) from error
        if not same:
            raise TraceError(_complaint(changes))

    def _overwritten(self, recorder: Recorder) -> Iterator[Change]:
        for tensor in recorder.overwritten:
            yield Change(self._snapshot.path_of(tensor) or "a tensor outside of the model")


def _count_on(changes: Sequence[Change]) -> bool:
    """Let every number that a run changed be what it is after many runs, for decisions that come late."""
    found = False
    for change in changes:
        numbers = (change.old, change.new)
        if isinstance(change.container, (dict, list)) and all(type(number) in (int, float) for number in numbers):
            change.container[change.key] += (change.new - change.old) * _MANY_CALLS
            found = True
    return found


def _complaint(changes: Sequence[Change]) -> str:
    paths = list(dict.fromkeys(change.path for change in changes))
    names = ", ".join(paths[:_SHOWN]) + (f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else "")
    return (
        f"the model changes {names} in its forward, and computes something else at the next call because of that; "
        f"make it a buffer (register_buffer), or {USE_ATOMIC}"
    )
