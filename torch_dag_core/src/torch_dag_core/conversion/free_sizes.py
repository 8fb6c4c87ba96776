"""Integers that follow the input sizes, how the model computed them, and what constants rest on."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple, NoReturn, TypeAlias

from torch_dag_core.errors import TraceError
from torch_dag_core.tracing.recording import Ref
from torch_dag_core.tracing.settled import plain


class SizeError(TraceError):
    """Something follows the input sizes in a way that a graph cannot state."""


@dataclass(frozen=True, slots=True)
class SizeOf:
    """A leaf of a formula: one size of a tensor.

    Attributes:
        tensor: The recorded tensor; None for a value of the graph.
        dim: Which dimension.
        values: The size in every recording.
    """

    tensor: Ref | None
    dim: int
    values: tuple[int, ...]


Formula: TypeAlias = "float | SizeOf | tuple[str, *tuple[Formula, ...]]"
"""A number, a size, or an operator of `torch_dag_core.graph.conditions` with its operands."""
Renew: TypeAlias = "Callable[[Ref], Ref | None]"


def grows(formula: Formula) -> bool:
    """Tell whether a number never falls as a size in it rises: far sizes then show its uses as they show the size's."""
    if isinstance(formula, tuple):
        operation, left, right = formula if len(formula) == 3 else ("", 0, 0)
        if operation == "floordiv":
            return grows(left) and _is_positive(right)
        return operation in ("add", "mul") and all(_is_positive(operand) or grows(operand) for operand in (left, right))
    return isinstance(formula, SizeOf)


def _is_positive(formula: Formula) -> bool:
    return isinstance(formula, (int, float)) and formula > 0


class Claim(NamedTuple):
    """What has to hold wherever the graph does: that a formula has this value.

    Attributes:
        formula: What the model computed.
        value: A number, or another formula.
        source: ``file:line`` of the call that takes it.
    """

    formula: Formula
    value: Formula
    source: str


class FreeSize(int):
    """An integer that follows the input sizes; only a builder may turn it into a `Size`.

    It compares as it does in every recording; a comparison that ends differently in two of them is refused.

    Attributes:
        values: Its value in every recording; it is the first of them itself.
        formula: How the model computed it; None where that is not known.
    """

    values: tuple[int, ...]
    formula: Formula | None

    @classmethod
    def make(cls, values: tuple[int, ...], formula: Formula | None = None) -> FreeSize:
        """Return the integer that had these values."""
        free = cls(values[0])
        free.values, free.formula = values, formula
        return free

    def about(self, renew: Renew) -> FreeSize:
        """Return the same integer, computed from other references to the same tensors."""
        return self if self.formula is None else FreeSize.make(self.values, _about(self.formula, renew))

    def _refuse(self, *_: object) -> NoReturn:
        message = f"arithmetic on a size that follows the inputs ({listed(self.values)})"
        raise SizeError(message)

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __neg__ = _refuse

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FreeSize):
            return self.values == other.values
        return all(value == other for value in self.values)

    def __hash__(self) -> int:
        return hash(self.values)

    def _ordered(self, other: float, compare: Callable[[float, float], bool]) -> bool:
        others = other.values if isinstance(other, FreeSize) else (other,) * len(self.values)
        outcomes = set(map(compare, self.values, others))
        if len(outcomes) > 1:
            message = f"a comparison of a size that follows the inputs ({listed(self.values)})"
            raise SizeError(message)
        return outcomes.pop()

    def __lt__(self, other: float) -> bool:
        return self._ordered(other, operator.lt)

    def __le__(self, other: float) -> bool:
        return self._ordered(other, operator.le)

    def __gt__(self, other: float) -> bool:
        return self._ordered(other, operator.gt)

    def __ge__(self, other: float) -> bool:
        return self._ordered(other, operator.ge)

    def __bool__(self) -> bool:
        return self._ordered(0, operator.ne)

    def __repr__(self) -> str:
        return f"FreeSize({'|'.join(map(str, self.values))})"


def _about(formula: Formula, renew: Renew) -> Formula:
    if isinstance(formula, tuple):
        return (formula[0], *(_about(operand, renew) for operand in formula[1:]))
    if isinstance(formula, SizeOf) and formula.tensor is not None:
        return replace(formula, tensor=renew(formula.tensor))
    return formula


def listed(values: Iterable[object]) -> str:
    """Return the different values that one thing had in several recordings, as text."""
    first, *others = dict.fromkeys(map(repr, map(plain, values)))
    return f"{first} at one input size and {' and '.join(others)} at others"
