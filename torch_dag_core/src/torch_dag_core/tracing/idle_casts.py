"""Casts to the type that a tensor has: torch hands the tensor back, and a trace records another entry."""

from __future__ import annotations

from collections.abc import Sequence

from torch_dag_core.tracing.recording import Entry, FunctionCall, Ref

_CASTS = frozenset({"to", "type_as", "float", "double", "half", "bfloat16", "int", "long", "bool"})


def handed_back(entry: Entry, entries: Sequence[Entry]) -> Entry | None:
    """Return the operand that a cast without effect hands back; None where an entry is anything else."""
    if not isinstance(entry, FunctionCall) or entry.name not in _CASTS or not isinstance(entry.args[0], Ref):
        return None
    operand = entries[entry.args[0].index]
    return operand if operand.outcome.dtype == entry.outcome.dtype else None


def is_kept(value: Entry, before: Entry, entries: Sequence[Entry]) -> bool:
    """Tell whether a value is what was there before, whatever casts without effect it went through."""
    while value is not before:
        source = handed_back(value, entries)
        if source is None:
            return False
        value = source
    return True
