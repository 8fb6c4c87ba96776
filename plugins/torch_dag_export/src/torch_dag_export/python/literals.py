"""Constants of graphs as Python expressions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from torch_dag_core.graph.values import Size, Slot


def literal(value: Any, operands: Sequence[str] = ()) -> str:
    """Return an expression with the value of a constant of `torch_dag_core.graph.values`.

    Args:
        value: The constant.
        operands: The expressions that a `Slot` stands for, and whose shapes a `Size` reads.
    """
    if isinstance(value, tuple):
        items = [literal(item, operands) for item in value]
        return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
    if isinstance(value, list):
        return f"[{', '.join(literal(item, operands) for item in value)}]"
    if isinstance(value, slice):
        return f"slice({', '.join(literal(part, operands) for part in (value.start, value.stop, value.step))})"
    write: Callable[..., str] = _WRITERS.get(type(value), lambda item, _: repr(item))
    return write(value, operands)


def subscript(items: tuple[Any, ...], operands: Sequence[str]) -> str:
    """Return what stands between the brackets of an index: ``:, 0`` for ``(slice(None), 0)``."""
    return ", ".join(_index(item, operands) for item in items) if items else "()"


def _index(item: Any, operands: Sequence[str]) -> str:
    if not isinstance(item, slice):
        return literal(item, operands)
    start, stop, step = ("" if part is None else literal(part, operands) for part in (item.start, item.stop, item.step))
    return f"{start}:{stop}:{step}" if step else f"{start}:{stop}"


def text(value: str) -> str:
    """Return a string in double quotes, where it needs no escapes."""
    return f'"{value}"' if value.isprintable() and not set(value) & {'"', "\\"} else repr(value)


def _float(value: float, _: Sequence[str]) -> str:
    return repr(value) if math.isfinite(value) else f'float("{value}")'


def _size(value: Size, operands: Sequence[str]) -> str:
    """Return the expression of a size, which `Size` describes."""
    factors = [f"{operands[operand]}.shape[{dim}]" for operand, dim in value.dims]
    product = " * ".join([*([str(value.num)] if value.num != 1 or not factors else []), *factors])
    if value.den != 1:
        product = f"{product} // {value.den}"
    return f"{product} + {value.add}" if value.add else product


_WRITERS: dict[type, Any] = {
    float: _float,
    str: lambda value, _: text(value),
    complex: lambda value, _: f"complex({_float(value.real, ())}, {_float(value.imag, ())})",
    torch.dtype: lambda value, _: str(value),
    type(Ellipsis): lambda _, __: "...",
    Slot: lambda value, operands: operands[value.index],
    Size: _size,
}
