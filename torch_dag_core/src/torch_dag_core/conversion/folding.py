"""What of a recording is needed, and which of its constants may be taken as such."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from torch import nn

from torch_dag_core.errors import TraceError
from torch_dag_core.tracing.recording import Held, Recording


class Foldable(Protocol):
    """A recording, and which of its entries are constants."""

    @property
    def recording(self) -> Recording:
        """The recording."""

    def is_folded(self, index: int) -> bool:
        """Tell whether an entry is a constant, which needs no other entry."""


def needed_by(numbers: Iterable[int], sizes: Foldable) -> set[int]:
    """Return these entries and all that they need; constants need nothing."""
    stack = list(numbers)
    live = set(stack)
    while stack:
        number = stack.pop()
        operands = () if sizes.is_folded(number) else sizes.recording.entries[number].operands
        fresh = [operand for operand in operands if operand not in live]
        live.update(fresh)
        stack.extend(fresh)
    return live


def is_persistent(model: nn.Module, buffer: str) -> bool:
    """Tell whether state dicts of the model hold this buffer."""
    owner, _, name = buffer.rpartition(".")
    return name not in model.get_submodule(owner)._non_persistent_buffers_set


def changing_constants(
    recording: Recording, overwritten: Collection[str], persistent: Callable[[str], bool]
) -> frozenset[int]:
    """Return the numbers of constants that are no constants of the graph, because a buffer that changes is in them.

    That is a buffer which the model overwrites in any mode, and one that a checkpoint may load another value into; the
    latter by itself is a constant of the graph, but nothing computed from it is.

    Args:
        recording: The recording.
        overwritten: Names of the buffers that the model overwrites.
        persistent: Tells whether checkpoints hold a buffer.

    Raises:
        TraceError: the model decides on the value of a buffer that it overwrites.
    """
    from_overwritten: set[int] = set()
    from_loadable: set[int] = set()
    computed: set[int] = set()
    for index, entry in enumerate(recording.entries):
        if not entry.outcome.is_constant:
            continue
        if isinstance(entry, Held) and entry.kind == "buffer":
            if entry.path in overwritten:
                from_overwritten.add(index)
            elif persistent(entry.path):
                from_loadable.add(index)
        elif not (from_overwritten.isdisjoint(entry.operands) and from_loadable.isdisjoint(entry.operands)):
            computed.add(index)
            is_overwritten = not from_overwritten.isdisjoint(entry.operands)
            (from_overwritten if is_overwritten else from_loadable).add(index)
    refused = next((escape for escape in recording.escapes if escape.index in from_overwritten), None)
    if refused is not None:
        raise TraceError(refused.message)
    return frozenset(from_overwritten | computed)
