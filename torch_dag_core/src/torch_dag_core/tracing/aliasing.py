"""In-place calls made functional: which tensor a view looks into, and how a write travels back to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn


@dataclass
class View:
    """How a tensor was cut out of another: a recorded call, with the base's place among its arguments."""

    base: Tensor
    call: Callable[[fx.Node], fx.Node]
    name: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    item: int | None


@dataclass
class TensorRecord:
    """What the trace knows of one tensor object."""

    trace: object
    node: fx.Node
    version: int
    view: View | None = None


def pick(values: tuple[Tensor, ...], index: int) -> Tensor:
    """Return one of several results of a call."""
    return values[index]


def apply_op(op: type[nn.Module], constants: tuple[Any, ...], *tensors: Tensor) -> Any:
    """Call an op of these constants."""
    return op(*constants)(*tensors)


def set_index(x: Tensor, items: tuple[Any, ...], value: Tensor | float) -> Tensor:
    """Return a copy of ``x`` with ``[items]`` overwritten; the functional form of ``x[items] = value``."""
    result = x.clone()
    result[items] = value
    return result


Scatter = Callable[["View", tuple[int, ...]], tuple[str, Any]]


def _region(dim: int, start: int, stop: int) -> tuple[Any, ...]:
    return (*(slice(None),) * dim, slice(start, stop))


def _getitem(view: View, _: tuple[int, ...]) -> tuple[str, Any]:
    (items,) = view.arguments
    return "set", items if isinstance(items, tuple) else (items,)


def _select(view: View, shape: tuple[int, ...]) -> tuple[str, Any]:
    dim, index = _bind(view, "dim", "index")
    return "set", (*(slice(None),) * (dim % len(shape)), index)


def _narrow(view: View, shape: tuple[int, ...]) -> tuple[str, Any]:
    dim, start, length = _bind(view, "dim", "start", "length")
    return "set", _region(dim % len(shape), start, start + length)


def _unbind(view: View, shape: tuple[int, ...]) -> tuple[str, Any]:
    (dim,) = _bind(view, "dim", default=0)
    return "set", (*(slice(None),) * (dim % len(shape)), view.item)


def _pieces(view: View, shape: tuple[int, ...]) -> tuple[str, Any]:
    how, dim = _bind(view, "split_size_or_sections" if view.name == "split" else "chunks", "dim", default=0)
    dim %= len(shape)
    base = torch.empty(shape, device="meta")
    lengths = [piece.shape[dim] for piece in getattr(torch, view.name)(base, how, dim)]
    item = view.item or 0
    return "set", _region(dim, sum(lengths[:item]), sum(lengths[: item + 1]))


def _reshape(_: View, shape: tuple[int, ...]) -> tuple[str, Any]:
    return "reshape", shape


def _transpose(view: View, shape: tuple[int, ...]) -> tuple[str, Any]:
    dims = list(range(len(shape)))
    first, second = _bind(view, "dim0", "dim1") if view.name == "transpose" else (-2, -1)
    if len(dims) > 1:
        dims[first], dims[second] = dims[second], dims[first]
    return "permute", tuple(dims)


def _reverse(_: View, shape: tuple[int, ...]) -> tuple[str, Any]:
    return "permute", tuple(reversed(range(len(shape))))


def _permute(view: View, shape: tuple[int, ...]) -> tuple[str, Any]:
    dims = view.arguments[0] if isinstance(view.arguments[0], (tuple, list)) else view.arguments
    inverse = [0] * len(shape)
    for place, dim in enumerate(dims):
        inverse[dim] = place
    return "permute", tuple(inverse)


def _same(_: View, shape: tuple[int, ...]) -> tuple[str, Any]:
    return "reshape", shape


WRITE_BACK: dict[str, Scatter] = {
    "__getitem__": _getitem, "select": _select, "narrow": _narrow, "unbind": _unbind, "chunk": _pieces,
    "split": _pieces, "view": _reshape, "reshape": _reshape, "flatten": _reshape, "squeeze": _reshape,
    "unsqueeze": _reshape, "unflatten": _reshape, "view_as": _reshape, "transpose": _transpose, "t": _transpose,
    "mT": _transpose, "T": _reverse, "permute": _permute, "contiguous": _same, "to": _same, "detach": _same,
}  # fmt: skip
"""How a value written into the view is put back into its base, by the function that made the view."""


def _bind(view: View, *names: str, default: Any = None) -> list[Any]:
    given = list(view.arguments)
    return [given[i] if i < len(given) else view.keywords.get(name, default) for i, name in enumerate(names)]
