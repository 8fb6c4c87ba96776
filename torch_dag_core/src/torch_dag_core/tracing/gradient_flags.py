"""What a trace answers where a model asks whether tensors require gradients.

A trace runs without autograd, so tensors know nothing of gradients. The answers are read from what was recorded: a
value requires a gradient if autograd was on and any operand requires one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch_dag_core.graph.caller_state import needs_no_gradient
from torch_dag_core.tracing.recording import Entry, Held, Input, ModuleCall, Ref
from torch_dag_core.tracing.sources import Source

GRADIENT_NAMES = frozenset({"requires_grad", "is_leaf", "grad_fn", "is_inference"})
_ADVICE = "so a graph would compute the same whether or not gradients are; decide by self.training"
_NOTHING, _INPUTS = 0, 1
"""Trials: nothing requires a gradient, as under ``torch.no_grad()``; inputs require one as well."""


class _Node:
    """Stands for the node of autograd that made a tensor."""


class GradientFlags:
    """Counts the questions, and answers them for other callers once it is steered."""

    def __init__(self) -> None:
        self._calls = 0
        self._inputs: set[int] = set()
        self._trial: int | None = None

    def sources(self) -> tuple[Source, Source]:
        """Return the gradient mode, and whether inputs require gradients, as sources of what a model computes."""
        conditions: Callable[[], tuple[tuple[Any, ...], ...]] = lambda: tuple(  # noqa: E731
            map(needs_no_gradient, sorted(self._inputs))
        )
        name = "requires_grad of a tensor"
        return (
            Source(name, self._read, lambda _: self._steer(_NOTHING), 1, _ADVICE, follows_gradients=False),
            Source(name, self._read, lambda _: self._steer(_INPUTS), 1, _ADVICE, conditions=conditions),
        )

    def _read(self) -> int:
        return self._calls

    def _steer(self, trial: int) -> None:
        self._trial = trial

    def release(self) -> None:
        """Give the real answers again."""
        self._trial = None

    def answer(
        self, name: str, given: object, ref: Ref, entries: Sequence[Entry], learns: Callable[[str], bool]
    ) -> object:
        """Return the value of an attribute of a recorded tensor.

        Args:
            name: One of `GRADIENT_NAMES`.
            given: What the tensor itself says.
            ref: Its entry.
            entries: What was recorded so far.
            learns: Tells whether the module of a path has parameters that require gradients.
        """
        self._calls += 1
        self._inputs.update(place for place, entry in enumerate(_inputs(entries)) if _is_floating(entry))
        needs = (given is True and name == "requires_grad") or self._needs(ref.index, entries, learns)
        made = not isinstance(entries[ref.index], (Input, Held))
        answers = {
            "requires_grad": needs, "is_leaf": not (needs and made), "grad_fn": _Node() if needs and made else None,
            "is_inference": self._trial == _NOTHING and made,
        }  # fmt: skip
        return answers[name]

    def _needs(self, last: int, entries: Sequence[Entry], learns: Callable[[str], bool]) -> bool:
        found: list[bool] = []
        for entry in entries[: last + 1]:
            found.append(self._trial != _NOTHING and self._needs_itself(entry, found, learns))
        return found[last]

    def _needs_itself(self, entry: Entry, found: list[bool], learns: Callable[[str], bool]) -> bool:
        if isinstance(entry, Input):
            return self._trial == _INPUTS and _is_floating(entry)
        if isinstance(entry, Held):
            return entry.tensor.requires_grad
        if not entry.origin.gradient or entry.name == "detach" or not _is_floating(entry):
            return False
        return any(found[operand] for operand in entry.operands) or (
            isinstance(entry, ModuleCall) and learns(entry.path)
        )


def _inputs(entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if isinstance(entry, Input)]


def _is_floating(entry: Entry) -> bool:
    dtype = entry.outcome.dtype
    return dtype is None or dtype.is_floating_point or dtype.is_complex
