"""Sizes that the model reads off tensors: integers that remember where they came from."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from torch_dag_core.tracing.location import caller
from torch_dag_core.tracing.pause import Pause
from torch_dag_core.tracing.recording import Live
from torch_dag_core.tracing.sizes import Guard, TracedInt
from torch_dag_core.tracing.tape import Tape
from torch_dag_core.tracing.tracker import Tracker

SIZE_NAMES = frozenset({"shape", "size", "numel", "nelement"})


class SizeReads:
    """Answers questions about sizes, and notes the decisions that the model takes on the answers."""

    def __init__(self, tape: Tape, tracker: Tracker, pause: Pause) -> None:
        self._tape, self._tracker, self._pause = tape, tracker, pause

    def read(self, name: str, tensor: Tensor, dim: Live) -> Live:
        """Return a size, or all of them, of a tensor that the trace knows.

        Args:
            name: One of `SIZE_NAMES`.
            tensor: The tensor.
            dim: The dimension that ``size`` was asked for; None asks for all.
        """
        number = self._tracker.tracked(tensor).ref.index
        sizes = [TracedInt.make(int(n), ("size", number, place), self._log) for place, n in enumerate(tensor.shape)]
        if name in ("numel", "nelement"):
            product = 1
            for size in sizes:
                product = size * product
            return product
        return sizes[dim] if isinstance(dim, int) else torch.Size(sizes)

    def length(self, function: Callable[..., int], tensor: Tensor) -> int:
        """Return ``len(tensor)``, which Python makes an ordinary number."""
        self._tape.size_lost = True
        return int(function(tensor))

    def _log(self, condition: tuple[object, ...] | None, outcome: bool) -> None:  # noqa: FBT001
        if self._pause:
            return
        if condition is None:
            self._tape.size_lost = True
        else:
            self._tape.guards.append(Guard(condition, outcome, caller()))
