"""How one trace uses sizes, while it runs."""

from __future__ import annotations

import math

from torch_dag_core.graph.conditions import NO_VALUE, OPERATORS
from torch_dag_core.tracing.disguise import Disguise
from torch_dag_core.tracing.expressions import EntrySize, Expression, Guard, Loss, Scope, SizeUse, is_large, simplified
from torch_dag_core.tracing.location import caller
from torch_dag_core.tracing.pause import Pause
from torch_dag_core.tracing.sizes import KINDS, Traced, TracedInt, elsewhere_of, expression_of


class SizeLog:
    """Takes note of comparisons and losses, and makes the numbers that remember how they were computed.

    Attributes:
        scopes: Global namespaces whose ``int`` and ``float`` were called on sizes.
    """

    def __init__(self, pause: Pause, disguise: Disguise | None = None) -> None:
        self.scopes: list[Scope] = []
        self._disguise = disguise
        self._pause = pause
        self._is_any = False
        self._guards: list[Guard] = []
        self._losses: list[Loss] = []
        self._returned: list[Loss] = []
        self._computed: list[tuple[Traced, str]] = []

    def size(self, value: int, index: int, dim: int) -> TracedInt:
        """Return the size of dimension ``dim`` of what entry number ``index`` gave."""
        self._is_any = True
        elsewhere = value if self._disguise is None else self._disguise.elsewhere(index, dim, value)
        return TracedInt.make(value, elsewhere, EntrySize(index, dim), self)

    @property
    def shown(self) -> int:
        """What a number shows that is another one elsewhere."""
        assert self._disguise is not None
        return self._disguise.value

    def compared(self, comparison: str, left: Expression, right: Expression, outcome: bool) -> None:  # noqa: FBT001
        """Record a comparison."""
        if not self._pause:
            self._guards.append(Guard(comparison, left, right, outcome, caller()))

    def lost(self, expression: Expression, *, hides: bool = True) -> None:
        """Record that a number lives on as an ordinary object."""
        if not self._pause:
            self._losses.append(Loss(expression, caller(), hides))

    def returned(self, expression: Expression) -> None:
        """Record that the model returned a number."""
        self._returned.append(Loss(expression, "its output"))

    def follow(self, value: float, operation: str, *operands: float) -> float:
        """Return ``value``, which an operation gave for these operands, as a number that remembers it."""
        expression = simplified(operation, *map(expression_of, operands))
        if is_large(expression):
            for operand in operands:
                if isinstance(operand, Traced):
                    operand.lose()
            return value
        kind = KINDS.get(type(value))
        if kind is None:
            return value
        elsewhere = value if self._disguise is None else _elsewhere(operation, operands)
        result = kind.make(value, elsewhere, expression, self)
        self._computed.append((result, caller()))
        return result

    def close(self) -> SizeUse:
        """Return what was recorded, once the run is over."""
        # Results of arithmetic that nothing used in a way that can be seen: as an index of a list, perhaps.
        unused = [
            Loss(number.expression, source, hides=not number.compared, is_unseen=True)
            for number, source in self._computed
            if not number.used
        ]
        losses = (*self._losses, *self._returned, *unused)
        self._computed.clear()  # each of these numbers refers to this log
        return SizeUse(self._is_any, tuple(self._guards), losses, tuple(self.scopes))


def _elsewhere(operation: str, operands: tuple[float, ...]) -> float:
    """Return the result of an operation in the run which a disguised one is compared with; NaN where it has none."""
    try:
        found: float = OPERATORS[operation].function(*map(elsewhere_of, operands))
    except NO_VALUE:
        return math.nan
    return found
