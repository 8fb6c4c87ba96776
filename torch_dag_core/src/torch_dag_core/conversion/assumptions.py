"""Decisions that the model took on sizes, as conditions on the inputs of the graph."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

from torch_dag_core.conversion.builder import Value
from torch_dag_core.conversion.joining import FreeSize, SizeError, Sizes
from torch_dag_core.graph.inputs import Assumption
from torch_dag_core.tracing.sizes import Guard

_NEGATED = {"eq": "ne", "ne": "eq", "lt": "ge", "ge": "lt", "gt": "le", "le": "gt"}


def assumptions(guards: Iterable[Guard], sizes: Sizes, inputs: list[Value]) -> tuple[Assumption, ...]:
    """Return the conditions that are not always true, each once.

    Raises:
        SizeError: a decision rests on a free size that is no simple function of the input sizes.
    """
    found: dict[tuple[Any, ...], None] = {}
    for guard in guards:
        comparison, left, right = guard.condition
        left, right = (_over_inputs(side, sizes, inputs, guard) for side in (left, right))
        if _is_free(left) or _is_free(right):
            found[comparison if guard.outcome else _NEGATED[comparison], left, right] = None
    return tuple(Assumption(condition) for condition in found if not _always(condition))


def hold(assumptions: Iterable[Assumption], shapes: Sequence[Sequence[int]]) -> bool:
    """Tell whether inputs of these shapes respect every assumption."""

    def value(expression: Any) -> Any:
        if not isinstance(expression, tuple):
            return expression
        if expression[0] == "input":
            return shapes[expression[1]][expression[2]]
        return _CALL[expression[0]](value(expression[1]), value(expression[2]))

    return all(value(assumption.condition) for assumption in assumptions)


def steps_of(step: int, inputs: list[Value], *, beyond_batch: bool) -> tuple[Assumption, ...]:
    """Return the conditions that free sizes, of the batch or beyond it, are whole steps from those traced."""
    return tuple(
        Assumption(("eq", ("mod", ("input", index, dim), step), int(size) % step))
        for index, value in enumerate(inputs)
        for dim, size in enumerate(value.shape or ())
        if (dim > 0) == beyond_batch and type(size) is FreeSize
    )


def _always(condition: tuple[Any, ...]) -> bool:
    """Tell whether the condition holds for every tensor that is not empty."""
    comparison, left, right = condition
    if left == right:
        return comparison in ("eq", "le", "ge")
    is_size = isinstance(left, tuple) and left[0] == "input"
    return is_size and right == 0 and comparison in ("ne", "gt", "ge")


def _is_free(expression: Any) -> bool:
    return isinstance(expression, tuple)


def _over_inputs(expression: Any, sizes: Sizes, inputs: list[Value], guard: Guard) -> Any:
    if not isinstance(expression, tuple):
        return expression
    if expression[0] == "size":
        return _leaf(sizes.size(expression[1], expression[2]), inputs, guard)
    function, left, right = expression
    left, right = _over_inputs(left, sizes, inputs, guard), _over_inputs(right, sizes, inputs, guard)
    if _is_free(left) or _is_free(right):
        return (function, left, right)
    return _FOLD[function](left, right)


_FOLD: dict[str, Any] = {name: getattr(operator, name) for name in ("add", "sub", "mul", "floordiv", "mod")}
_CALL = {**_FOLD, **{name: getattr(operator, name) for name in _NEGATED}}


def _leaf(size: int, inputs: list[Value], guard: Guard) -> Any:
    if type(size) is not FreeSize:
        return size
    for index, value in enumerate(inputs):
        for dim, extent in enumerate(value.shape or ()):
            if type(extent) is not FreeSize or int(size) * extent.other != size.other * int(extent):
                continue
            exact = ("input", index, dim)
            if int(size) == int(extent):
                return exact
            if dim == 0:
                return _times(int(size), int(extent), exact)
    message = f"the model compares sizes at {guard.source} in a way that does not follow the inputs' sizes simply"
    raise SizeError(message)


def _times(size: int, extent: int, leaf: Any) -> Any:
    common = math.gcd(size, extent)
    product = ("mul", leaf, size // common) if size != common else leaf
    return ("floordiv", product, extent // common) if extent != common else product
