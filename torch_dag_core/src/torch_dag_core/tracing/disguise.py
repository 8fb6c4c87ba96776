"""Sizes that show a wrong value to whatever cannot be followed.

Code in C reads the value of an int below every method that a subclass has: ``items[:n]``, ``0.5 * n`` and ``[0] * n``
leave no trace. In a run under a `Disguise` these read another number than the size, while all that is followed goes on
with the size itself. A run that then makes other calls shows that something hidden decides them.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch_dag_core.tracing.recording import Recording

VALUES = 1, 3, 4_100
"""What to show in turn: nearly all sizes exceed the first, hardly any reaches the last, and their remainders differ."""


@dataclass(frozen=True)
class Disguise:
    """Which numbers show another value, and which.

    Attributes:
        reference: A run at other sizes. Only numbers that differ from its own are disguised.
        value: What these show.
    """

    reference: Recording
    value: int

    def elsewhere(self, index: int, dim: int, size: int) -> int:
        """Return the size in the reference of a dimension of what entry number ``index`` gave; here it is ``size``."""
        shape = self.reference.entries[index].outcome.shape if index < len(self.reference.entries) else None
        return size if shape is None or dim >= len(shape) else shape[dim]
