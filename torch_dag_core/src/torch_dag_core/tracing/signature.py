"""What a recording computes, as a function of inputs, parameters and buffers: equal for recordings that do the same.

Entries are numbered by content (global value numbering): two calls of one function on operands of equal numbers have
one number, whichever recording they stand in. What is computed from constants alone counts by its value, so that a
table that was computed in one run and found in a cache by the next is the same operand.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import torch
from torch import Tensor, nn

from torch_dag_core.graph.nested import leaves, map_leaves
from torch_dag_core.tracing.idle_casts import handed_back
from torch_dag_core.tracing.names import RANDOM, canonical
from torch_dag_core.tracing.recording import Argument, Entry, FunctionCall, Held, Input, ModuleCall, Recording, Ref
from torch_dag_core.tracing.settled import plain

_OUTLINED = {
    "copy": 0, "fill": 0, "zero": 0, "to": 1, "type_as": 1, "expand_as": 1, "view_as": 1, "reshape_as": 1,
}  # fmt: skip
"""Functions whose result has nothing of one operand but shape and type, and the place of that operand."""
_RANDOM = frozenset(map(canonical, RANDOM))


@dataclass(frozen=True, slots=True)
class Signature:
    """What compares equal for recordings of equal effect.

    Attributes:
        template: Structure of the results, with numbers and such in it.
        outputs: Numbers of the results.
        written: Names of buffers, with the numbers of their new values.
        changing: Numbers of the calls that change state by themselves.
    """

    template: object
    outputs: tuple[int, ...]
    written: tuple[tuple[str, int], ...]
    changing: tuple[int, ...]


class Signatures:
    """Numbers the entries of several recordings of one model in one mode.

    Args:
        modules: Every module of the model with its path, before the first run.
        follows_gradients: Whether a value and the same value cut off from gradients are two things.
    """

    def __init__(self, modules: Sequence[tuple[str, nn.Module]], *, follows_gradients: bool = True) -> None:
        self._follows_gradients = follows_gradients
        # A buffer that the first run made is read by the next as another operand, or else it does not matter.
        self._buffers = {
            f"{path}.{name}" if path else name
            for path, module in modules
            for name, buffer in module._buffers.items()
            if buffer is not None
        }
        self._training = {path for path, module in modules if module.training}
        self._numbers: dict[Hashable, int] = {}
        self._of: dict[Entry, int] = {}
        self._changing: set[Entry] = set()
        self._varying: set[Entry] = set()

    def of(self, recording: Recording) -> Signature:
        """Return the signature of a recording; recordings whose state it was started from have to come before it."""
        entries = recording.entries
        calls: Counter[Hashable] = Counter()
        for entry in entries:
            self._classify(entry, recording)
            self._of[entry] = self._number(entry, entries, calls)
        written = ((entry.writes, self._of[entry]) for entry in entries if entry.writes is not None)
        return Signature(
            recording.template,
            tuple(self._of[entries[output]] for output in recording.outputs),
            tuple((name, number) for name, number in written if name in self._buffers),
            tuple(self._of[entry] for entry in entries if entry.changes_state),
        )

    def first_difference(self, first: Recording, second: Recording) -> Entry | None:
        """Return the first entry that only one of two recordings has at its place, given that both have signatures."""
        pairs = zip_longest(first.entries, second.entries)
        numbers = self._of
        return next((one or other for one, other in pairs if numbers.get(one) != numbers.get(other)), None)

    def _classify(self, entry: Entry, recording: Recording) -> None:
        """Note whether an entry depends on a buffer that the model overwrites, and whether its value varies."""
        is_overwritten = isinstance(entry, Held) and entry.kind == "buffer" and entry.path in recording.written
        if is_overwritten or not self._changing.isdisjoint(recording.entries[operand] for operand in entry.operands):
            self._changing.add(entry)
        values = (recording.entries[operand] for operand in _values(entry))
        if self._varies(entry) or not (entry.outcome.is_constant or self._varying.isdisjoint(values)):
            self._varying.add(entry)

    def _varies(self, entry: Entry) -> bool:
        """Tell whether an entry has another value at each run."""
        if isinstance(entry, ModuleCall):
            return entry.path in self._training
        return isinstance(entry, Input) or entry.name in _RANDOM

    def _number(self, entry: Entry, entries: tuple[Entry, ...], calls: Counter[Hashable]) -> int:
        source = _computed_by(entry)
        if source is not None and source not in self._varying:
            return self._of[source]  # an earlier run computed it of parameters, and this one would do it again
        kept = handed_back(entry, entries)
        if kept is not None:
            return self._of[kept]
        if entry.name == "detach" and not self._follows_gradients and entry.operands:
            return self._of[entries[entry.operands[0]]]
        content = self._content(entry, entries)
        if isinstance(entry, ModuleCall) or entry.name in _RANDOM:
            calls[content] += 1
            content = (content, calls[content])
        return self._numbers.setdefault(content, len(self._numbers))

    def _content(self, entry: Entry, entries: tuple[Entry, ...]) -> Hashable:
        if _computed_by(entry) is not None:
            return entry  # like nothing else
        if isinstance(entry, Held) and entry.kind != "constant":
            return entry.kind, entry.path if entry.kind == "buffer" else id(entry.tensor)
        if entry.outcome.tensor is not None and entry not in self._changing:
            return _digest(entry.outcome.tensor)
        return self._call(entry, entries)

    def _call(self, entry: Entry, entries: tuple[Entry, ...]) -> Hashable:
        """Return what is called, with the numbers of operands in place of references."""

        def renumbered(leaf: Argument) -> Argument:
            return Ref(self._of[entries[leaf.index]]) if isinstance(leaf, Ref) else plain(leaf)

        outline = entry.outcome.shape, entry.outcome.dtype
        args = [
            outline if _is_outline(entry, place) else map_leaves(given, renumbered)
            for place, given in enumerate(entry.args)
        ]
        keywords = sorted(map_leaves(dict(entry.keywords), renumbered).items())
        called = entry.name if isinstance(entry, FunctionCall) else entry.identity
        return type(entry), called, repr((args, keywords))


def _is_outline(entry: Entry, place: int) -> bool:
    """Tell whether a call takes nothing but shape and type from the tensor at a place."""
    return _OUTLINED.get(entry.name) == place and isinstance(entry.args[place], Ref)


def _values(entry: Entry) -> Iterator[int]:
    """Yield the numbers of the entries whose values a call reads."""
    given = [argument for place, argument in enumerate(entry.args) if not _is_outline(entry, place)]
    return (leaf.index for leaf in leaves((given, entry.keywords)) if isinstance(leaf, Ref))


def _computed_by(entry: Entry) -> Entry | None:
    """Return the entry of an earlier run that is what an entry is, unless both are constant and count by value."""
    return None if not isinstance(entry, Held) or entry.outcome.is_constant else entry.computed_by


def _digest(value: Tensor) -> Hashable:
    """Return shape, type and a digest of the elements; the tensor's id where its elements cannot be read."""
    if value.layout is not torch.strided or value.is_meta or value.is_quantized:
        return id(value)
    flat = value.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).cpu().view(torch.uint8)
    return tuple(value.shape), value.dtype, hashlib.blake2b(flat.numpy().tobytes()).digest()
