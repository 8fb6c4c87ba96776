"""Recorded numbers: ordinary ones in all but the expression by which the model computed them from sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch_dag_core.graph.nested import is_flat, leaves, map_leaves
from torch_dag_core.tracing.expressions import Expression
from torch_dag_core.tracing.sizes import TracedFloat, TracedInt, ordinary

T = TypeVar("T")


class SettledInt(int):
    """An int that was computed from sizes.

    Attributes:
        expression: How it was computed.
    """

    expression: Expression


class SettledFloat(float):
    """The same for a float."""

    expression: Expression


def _settled_int(number: TracedInt) -> SettledInt:
    settled = SettledInt(ordinary(number))
    settled.expression = number.expression
    return settled


def _settled_float(number: TracedFloat) -> SettledFloat:
    settled = SettledFloat(ordinary(number))
    settled.expression = number.expression
    return settled


PLAIN: dict[type, Callable[[Any], object]] = {
    TracedInt: ordinary, TracedFloat: ordinary, SettledInt: int.__int__, SettledFloat: float.__float__,
}  # fmt: skip
"""By type, what stands for a value where calls are executed."""
SETTLING: dict[type, Callable[[Any], object]] = {TracedInt: _settled_int, TracedFloat: _settled_float}
"""By type, what stands for a value where calls are recorded."""


def plain(value: T) -> T:
    """Return ``value`` with every number inside that remembers an expression replaced by an ordinary one."""
    if PLAIN.keys().isdisjoint(map(type, leaves(value))):
        return value  # containers of any other class, which a leaf module may expect, stay what they are
    return _replaced(value, PLAIN)


def settled(value: T) -> T:
    """Return a copy of ``value``; each traced number inside becomes one that keeps its expression and logs no more."""
    if not value or (isinstance(value, tuple) and is_flat(value)):
        return value
    return _replaced(value, SETTLING)


def _replaced(value: T, rules: dict[type, Callable[[Any], object]]) -> T:
    def replace(leaf: object) -> object:
        rule = rules.get(type(leaf))
        return leaf if rule is None else rule(leaf)

    replaced: T = map_leaves(value, replace)
    return replaced
