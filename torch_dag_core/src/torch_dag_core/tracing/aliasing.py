"""How a value that was written into a view is put back into what the view was cut out of."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias, cast

import torch
from torch import Tensor

from torch_dag_core.tracing.recording import Live, Shape
from torch_dag_core.tracing.tracker import View

Index: TypeAlias = tuple[Live, ...]
RESHAPE, SET_INDEX = "reshape", "set_index"


class Scatter(NamedTuple):
    """One call: ``reshape`` or ``permute`` of the written value, or ``set_index`` of the base.

    Attributes:
        name: Name of the function.
        argument: The shape, the order of dimensions, or the index.
    """

    name: str
    argument: Index


def scatter_of(view: View, tensor: Tensor) -> Scatter | None:
    """Return the call that puts ``tensor``, the view, back into its base; None where there is none."""
    rule = _RULES.get(view.name)
    if rule is not None:
        return rule(view, tuple(view.base.shape))
    return _reshape(view, tuple(view.base.shape)) if _same_order(tensor, view.base) else None


def _same_order(tensor: Tensor, base: Tensor) -> bool:
    """Tell whether both hold the same elements in the same order."""
    if (tensor.numel(), tensor.storage_offset(), tensor.dtype) != (base.numel(), base.storage_offset(), base.dtype):
        return False
    same_layout = (tensor.shape, tensor.stride()) == (base.shape, base.stride())
    return same_layout or (tensor.is_contiguous() and base.is_contiguous())


def _into(dim: int, shape: Shape, item: Live) -> Scatter:
    """Set ``item`` of dimension ``dim``, and all of the dimensions before."""
    return Scatter(SET_INDEX, (*(slice(None),) * (dim % len(shape)), item))


def _getitem(view: View, _: Shape) -> Scatter:
    (items,) = view.args
    return Scatter(SET_INDEX, items if isinstance(items, tuple) else (items,))


def _select(view: View, shape: Shape) -> Scatter:
    dim, index = _integers(view, "dim", "index")
    return _into(dim, shape, index)


def _narrow(view: View, shape: Shape) -> Scatter:
    dim, start, length = _integers(view, "dim", "start", "length")
    return _into(dim, shape, slice(start, start + length))


def _unbind(view: View, shape: Shape) -> Scatter:
    (dim,) = _integers(view, "dim", default=0)
    return _into(dim, shape, view.item)


def _pieces(view: View, shape: Shape) -> Scatter:
    how, dim = _bind(view, "split_size_or_sections" if view.name == "split" else "chunks", "dim", default=0)
    dim = cast("int", dim) % len(shape)
    base = torch.empty(shape, device="meta")
    lengths = [piece.shape[dim] for piece in getattr(torch, view.name)(base, how, dim)]
    item = view.item or 0
    return _into(dim, shape, slice(sum(lengths[:item]), sum(lengths[: item + 1])))


def _reshape(_: View, shape: Shape) -> Scatter:
    return Scatter(RESHAPE, shape)


def _transpose(view: View, shape: Shape) -> Scatter:
    dims = list(range(len(shape)))
    first, second = _integers(view, "dim0", "dim1") if view.name == "transpose" else (-2, -1)
    if len(dims) > 1:
        dims[first], dims[second] = dims[second], dims[first]
    return Scatter("permute", tuple(dims))


def _reverse(_: View, shape: Shape) -> Scatter:
    return Scatter("permute", tuple(reversed(range(len(shape)))))


def _permute(view: View, shape: Shape) -> Scatter:
    given = view.args[0] if isinstance(view.args[0], (tuple, list)) else view.args
    dims = cast("tuple[int, ...]", given)
    inverse = [0] * len(shape)
    for place, dim in enumerate(dims):
        inverse[dim] = place
    return Scatter("permute", tuple(inverse))


_RULES: dict[str, Callable[[View, Shape], Scatter]] = {
    "__getitem__": _getitem, "select": _select, "narrow": _narrow, "unbind": _unbind, "chunk": _pieces,
    "split": _pieces, "view": _reshape, "reshape": _reshape, "flatten": _reshape, "squeeze": _reshape,
    "unsqueeze": _reshape, "unflatten": _reshape, "view_as": _reshape, "transpose": _transpose, "t": _transpose,
    "mT": _transpose, "T": _reverse, "permute": _permute, "contiguous": _reshape, "to": _reshape, "detach": _reshape,
}  # fmt: skip
"""By the function that made the view."""


def _bind(view: View, *names: str, default: Live = None) -> list[Live]:
    """Return the values of the view function's parameters, given by position or by name."""
    given = view.args
    return [given[i] if i < len(given) else view.keywords.get(name, default) for i, name in enumerate(names)]


def _integers(view: View, *names: str, default: Live = None) -> list[int]:
    return cast("list[int]", _bind(view, *names, default=default))
