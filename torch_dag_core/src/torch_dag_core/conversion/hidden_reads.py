"""Sizes that decide something below what Python shows, found by runs in which they show a wrong value."""

from __future__ import annotations

import itertools
from typing import NoReturn

from torch import Tensor

from torch_dag_core.conversion.free_sizes import SizeError
from torch_dag_core.conversion.joining import equal, same_calls, same_tensor
from torch_dag_core.graph.nested import leaves
from torch_dag_core.tracing.recording import Entry, Held, Recording


def refuse_hidden(recording: Recording, resized: Recording, disguised: Recording) -> None:
    """Refuse what differs between two runs of the same sizes, of which one showed wrong values.

    Constants that differ between sizes anyway are left to the comparison of these.

    Args:
        recording: A run at other sizes.
        resized: The run that showed the sizes as they are.
        disguised: The one that showed wrong values.

    Raises:
        SizeError: something hidden follows a size; names the line.
    """
    if not _same_path(recording, resized):
        return
    if not _same_path(resized, disguised):
        _refuse(_parting(resized, disguised))
    for entries in zip(recording.entries, resized.entries, disguised.entries, strict=True):
        if _are_alike(*entries[1:]):
            continue
        for before, here, shown in itertools.zip_longest(*map(_constants, entries)):
            if _is_same(before, here) and not _is_same(here, shown):
                _refuse(entries[1])


def _same_path(first: Recording, second: Recording) -> bool:
    return same_calls(first, second) and first.template == second.template


def _constants(entry: Entry) -> list[object]:
    """Return the leaves of a call's arguments; the tensor itself where it was built elsewhere."""
    if isinstance(entry, Held) and entry.kind == "constant":
        return [entry.tensor]
    return leaves((entry.args, entry.keywords))


def _are_alike(first: Entry, second: Entry) -> bool:
    """Tell quickly, of most calls, that they were given the same."""
    return not isinstance(first, Held) and (first.args, first.keywords) == (second.args, second.keywords)


def _is_same(a: object, b: object) -> bool:
    return same_tensor(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else equal(a, b)


def _parting(first: Recording, second: Recording) -> Entry:
    """Return the first entry that is not the same call in both, or the last one."""
    pairs = zip(first.entries, second.entries, strict=False)
    return next((a for a, b in pairs if a.signature != b.signature), first.entries[-1])


def _refuse(entry: Entry) -> NoReturn:
    message = (
        "a size decides what the model computes in a way that Python does not show, such as a slice of a list,"
        f" before {entry.origin.source}"
    )
    raise SizeError(message)
