"""Recorded numbers: ordinary ones in all but the expression by which the model computed them from sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from torch_dag_core.graph.nested import is_flat, leaves, map_by_class
from torch_dag_core.tracing.expressions import EntrySize, Expression
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


SETTLED = frozenset({SettledInt, SettledFloat})
"""The classes of recorded numbers that remember an expression."""


def sizes_of(index: int, shape: Sequence[int]) -> tuple[SettledInt, ...]:
    """Return the sizes of the tensor that entry number ``index`` gave, as if the model had asked for them."""
    return tuple(_settled(size, EntrySize(index, dim)) for dim, size in enumerate(shape))


def _settled_int(number: TracedInt) -> SettledInt:
    return _settled(int(ordinary(number)), number.expression)


def _settled(size: int, expression: Expression) -> SettledInt:
    settled = SettledInt(size)
    settled.expression = expression
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
    if _is_flat(value) or PLAIN.keys().isdisjoint(map(type, leaves(value))):
        return value  # containers of any other class, which a leaf module may expect, stay what they are
    replaced: T = map_by_class(value, PLAIN)
    return replaced


def settled(value: T) -> T:
    """Return ``value`` with every traced number inside replaced by one that keeps its expression and logs no more.

    Lists and dicts are copied, except for a dict without containers and traced numbers inside.
    """
    if _is_flat(value):
        return value
    replaced: T = map_by_class(value, SETTLING)
    return replaced


def without_arrays(value: T) -> T:
    """Return ``value`` with a constant tensor in place of every NumPy array inside, which recordings do not know."""
    if _is_flat(value) or np.ndarray not in map(type, leaves(value)):
        return value
    replaced: T = map_by_class(value, {np.ndarray: lambda array: torch.from_numpy(np.array(array))})
    return replaced


def _is_flat(value: Any) -> bool:
    """Tell quickly whether a tuple or dict, as which arguments come, has no containers and no traced numbers inside."""
    kind = type(value)
    return is_flat(value) if kind is tuple else kind is dict and (not value or is_flat(value.values()))
