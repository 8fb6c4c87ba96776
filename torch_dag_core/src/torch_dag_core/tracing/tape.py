"""The growing list of entries of one trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from torch_dag_core.tracing.expressions import SizeUse
from torch_dag_core.tracing.recording import Entry, Escape, Held, Recording, Ref, ref_to
from torch_dag_core.tracing.tensors import storage_of


class Tape:
    """Takes entries one after the other, and becomes a `Recording`.

    The only later changes are that an entry is found to be the new value of a buffer, and that the value of a
    constant is copied before a call overwrites it.

    Attributes:
        escapes: Constants that became Python values.
    """

    def __init__(self) -> None:
        self.escapes: list[Escape] = []
        self._entries: list[Entry] = []
        self._constants: dict[int, list[int]] = {}

    def __getitem__(self, ref: Ref) -> Entry:
        return self._entries[ref.index]

    @property
    def entries(self) -> Sequence[Entry]:
        """What was recorded so far."""
        return self._entries

    def append(self, entry: Entry) -> Ref:
        """Append an entry."""
        index = len(self._entries)
        self._entries.append(entry)
        if entry.outcome.tensor is not None:
            self._constants.setdefault(storage_of(entry.outcome.tensor), []).append(index)
        return ref_to(index)

    def all_constant(self, refs: list[Ref]) -> bool:
        """Tell whether all of these values are constant."""
        return all(self[ref].outcome.is_constant for ref in refs)

    def constants(self) -> list[Tensor]:
        """List the values of constants."""
        return [entry.outcome.tensor for entry in self._entries if entry.outcome.tensor is not None]

    def mark_as_write(self, ref: Ref, buffer: str) -> None:
        """Note that the buffer of this name has the value from here on."""
        self._entries[ref.index] = replace(self[ref], writes=buffer)

    def keep_constants(self, tensor: Tensor) -> None:
        """Copy the values of constants in a memory that is about to be written, for the entries that have them.

        Parameters and buffers are recorded as what they are before the run, which `restored` brings back.
        """
        for index in self._constants.pop(storage_of(tensor), ()):
            entry = self._entries[index]
            value = entry.outcome.tensor
            if value is not None and (not isinstance(entry, Held) or entry.kind == "constant"):
                outcome = replace(entry.outcome, tensor=value.clone())
                self._entries[index] = replace(entry, outcome=outcome)

    def close(
        self, outputs: list[Ref], template: object, sizes: SizeUse, conditions: tuple[tuple[Any, ...], ...] = ()
    ) -> Recording:  # fmt: skip
        """Return what was recorded, given what the model returned, its use of sizes, and conditions on its caller."""
        numbers = tuple(ref.index for ref in outputs)
        return Recording(tuple(self._entries), numbers, template, sizes, tuple(self.escapes), conditions)
