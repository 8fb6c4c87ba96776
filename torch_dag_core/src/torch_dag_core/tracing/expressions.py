"""What a trace records of computations with tensor sizes: expressions, comparisons, and what could not be followed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from torch_dag_core.graph.conditions import NEGATED

Scope: TypeAlias = dict[str, Any]
"""The global namespace of a module: any object under each name."""
_MOST_OPERATIONS = 100
_DEEPEST = 25
_NEUTRAL = {"add": 0, "sub": 0, "mul": 1, "floordiv": 1}
"""Right operands that change nothing."""


@dataclass(frozen=True, slots=True)
class EntrySize:
    """The size of dimension ``dim`` of the tensor that entry number ``index`` of the recording gave."""

    index: int
    dim: int


Operation: TypeAlias = "tuple[str, *tuple[Expression, ...]]"
"""An operator of `torch_dag_core.graph.conditions`, and its operands."""
Expression: TypeAlias = "int | float | EntrySize | Operation"


class Guard(NamedTuple):
    """A comparison that the model made on sizes.

    Attributes:
        comparison: The operator.
        left, right: What was compared.
        outcome: Whether it was true.
        source: ``file:line``.
    """

    comparison: str
    left: Expression
    right: Expression
    outcome: bool
    source: str

    @property
    def holding(self) -> str:
        """The comparison that was true: the operator itself or its opposite."""
        return self.comparison if self.outcome else NEGATED[self.comparison]


class Loss(NamedTuple):
    """A number computed from sizes that became an ordinary object, so that its further use is not recorded.

    Attributes:
        expression: How it was computed.
        source: ``file:line``.
        hides: Whether anything may depend on it; a text most likely only is part of a message.
        is_unseen: Whether nothing was seen to use it at all: code in C may have.
    """

    expression: Expression
    source: str
    hides: bool = True
    is_unseen: bool = False


@dataclass(frozen=True)
class SizeUse:
    """How one run of a model used the sizes of tensors.

    Attributes:
        is_any: Whether the model asked for any size.
        guards: The comparisons, in order.
        losses: The numbers that became ordinary objects, that were returned, or that nothing was seen to use.
        scopes: Global namespaces whose ``int`` and ``float`` were called on sizes; see `following`.
    """

    is_any: bool = False
    guards: tuple[Guard, ...] = ()
    losses: tuple[Loss, ...] = ()
    scopes: tuple[Scope, ...] = ()


def simplified(operation: str, *operands: Expression) -> Expression:
    """Return the expression of an operation; where the operation changes nothing, that of its operand."""
    neutral = _NEUTRAL.get(operation)
    if neutral is None:
        return (operation, *operands)
    left, right = operands
    if isinstance(right, int) and right == neutral:
        return left
    swaps = operation in ("add", "mul") and isinstance(left, int) and left == neutral
    return right if swaps else (operation, left, right)


def is_large(expression: Expression) -> bool:
    """Tell whether an expression is too large for a condition that is checked at every call."""
    count, level = 0, [expression]
    for _ in range(_DEEPEST):
        level = [operand for item in level if isinstance(item, tuple) for operand in item[1:]]
        count += len(level)
        if not level or count > _MOST_OPERATIONS:
            break
    return bool(level)
