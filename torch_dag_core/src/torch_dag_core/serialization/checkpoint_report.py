"""How the tensors of a checkpoint compare with those of a model, by name and shape."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

Shape = tuple[int, ...]
_SHOWN = 5
_CANDIDATES = 3
_SIMILAR = 0.5


@dataclass(frozen=True)
class CheckpointReport:
    """What of a checkpoint did not match a model.

    Attributes:
        missing: Names in the model for which the checkpoint has no tensor.
        unexpected: Names in the checkpoint that the model does not have.
        wrong_shapes: Shape in the checkpoint and shape in the model, by name, where they differ.
        model_shapes: Shape of each tensor of the model.
        checkpoint_shapes: Shape of each tensor of the checkpoint.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    wrong_shapes: Mapping[str, tuple[Shape, Shape]] = field(default_factory=dict)
    model_shapes: Mapping[str, Shape] = field(default_factory=dict, repr=False)
    checkpoint_shapes: Mapping[str, Shape] = field(default_factory=dict, repr=False)

    @property
    def matches(self) -> bool:
        """Whether every tensor has its counterpart."""
        return not (self.missing or self.unexpected or self.wrong_shapes)

    def candidates(self, name: str) -> tuple[str, ...]:
        """Return the names on the other side that may be meant by a missing or unexpected name, the nearest first.

        They have the same shape. Without one of a similar name, the only one of that shape is returned.
        """
        is_missing = name in self.missing
        own, other = (self.model_shapes, self.checkpoint_shapes)[:: 1 if is_missing else -1]
        unmatched: Collection[str] = self.unexpected if is_missing else self.missing
        shape = own.get(name)
        same = [each for each in unmatched if shape is not None and other.get(each) == shape]
        close = difflib.get_close_matches(name, same, n=_CANDIDATES, cutoff=_SIMILAR)
        return tuple(close or (same if len(same) == 1 else ()))

    def sizes(self) -> str:
        """Return the differences of shapes as text, the first few by name; "" if there are none."""
        wrong = [
            f"{name!r} is {given} in the file and {own} in the model"
            for name, (given, own) in self.wrong_shapes.items()
        ]
        more = f", and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        return f"size mismatch: {', '.join(wrong[:_SHOWN])}{more}" if wrong else ""

    def names(self) -> str:
        """Return the differences of names as text, the first few by name; "" if there are none."""
        groups = (("missing", self.missing), ("unexpected", self.unexpected))
        return ", ".join(f"{len(names)} {label} ({_first(names)})" for label, names in groups if names)

    def hints(self) -> str:
        """Return which missing names may be meant by which unexpected ones, the first few; "" if none."""
        found = ((name, self.candidates(name)) for name in self.missing)
        hints = [f"{name!r} may be {' or '.join(map(repr, near))}" for name, near in found if near]
        return f"nearest names of the same shape: {', '.join(hints[:_SHOWN])}" if hints else ""

    def __str__(self) -> str:
        texts = [text for text in (self.sizes(), self.names(), self.hints()) if text]
        return "; ".join(texts) or "every tensor matches"


def _first(names: Sequence[str]) -> str:
    return f"{', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
