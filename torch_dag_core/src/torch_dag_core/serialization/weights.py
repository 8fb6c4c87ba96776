"""Loading tensors: all are compared with what the rebuilt modules need before the first is copied."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import torch

from torch_dag_core.errors import SerializationError
from torch_dag_core.graph.values import DTYPES
from torch_dag_core.serialization.node import Node
from torch_dag_core.serialization.tensors import LAYOUT_DIMS, assign, restore
from torch_dag_core.serialization.walk import TensorPlace

# Names of the types in a safetensors header; complex numbers are stored as pairs of reals.
_STORED_AS = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "int16": "I16", "int32": "I32", "int64": "I64", "float16": "F16",
    "bfloat16": "BF16", "float32": "F32", "float64": "F64", "complex64": "F32", "complex128": "F64",
}  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """The entry of one tensor in the document's table ``tensors``."""

    dtype: str
    requires_grad: bool
    persistent: bool
    alias: str | None
    same: bool
    layout: str | None


def fill(places: list[TensorPlace], table: Node, handle: Any) -> None:
    """Load the tensor of every place; all are checked before the first is read.

    Args:
        places: The parameters and buffers of the rebuilt modules.
        table: The table ``tensors`` of the document.
        handle: The open safetensors file.

    Raises:
        SerializationError: a tensor is missing, belongs to no module, or has another kind, shape or dtype than its
            module needs.
    """
    nodes = table.table()
    wanted = {place.name: place for place in places}
    _check_names(wanted, nodes, table)
    entries = {name: _entry(nodes[name], place) for name, place in wanted.items()}
    _check_stored(wanted, entries, set(handle.keys()))
    for name, place in wanted.items():
        _check_place(place, entries[name], entries, wanted)
        if entries[name].alias is None:
            _check_header(place, entries[name], handle.get_slice(name))
    _assign_all(wanted, entries, handle)


def _assign_all(places: dict[str, TensorPlace], entries: dict[str, Entry], handle: Any) -> None:
    for name, place in places.items():
        entry = entries[name]
        if entry.alias is None:
            stored = restore(handle.get_tensor(name), entry.dtype, entry.layout)
            assign(place, stored, requires_grad=entry.requires_grad)
    for name, place in places.items():
        entry = entries[name]
        if entry.alias is not None:
            shared = places[entry.alias].tensor
            assign(place, shared if entry.same else shared.detach(), requires_grad=entry.requires_grad)


def _entry(node: Node, place: TensorPlace) -> Entry:
    fields = node.fields("dtype", optional=["requires_grad", "persistent", "alias", "same", "layout"])
    return Entry(
        dtype=fields["dtype"].text(),
        requires_grad=fields["requires_grad"].flag() if "requires_grad" in fields else place.is_parameter,
        persistent=fields["persistent"].flag() if "persistent" in fields else True,
        alias=fields["alias"].text() if "alias" in fields else None,
        same=fields["same"].flag() if "same" in fields else False,
        layout=fields["layout"].text() if "layout" in fields else None,
    )


def _check_names(wanted: dict[str, TensorPlace], nodes: dict[str, Node], table: Node) -> None:
    missing, extra = wanted.keys() - nodes.keys(), nodes.keys() - wanted.keys()
    if missing:
        name = min(missing)
        table.fail(f"lacks {name!r}, a tensor of vertex {wanted[name].vertex!r}{_more(missing)}")
    if extra:
        table.fail(f"has {min(extra)!r:.100}, which is no tensor of any vertex{_more(extra)}")


def _check_stored(wanted: dict[str, TensorPlace], entries: dict[str, Entry], stored: set[str]) -> None:
    expected = {name for name, entry in entries.items() if entry.alias is None}
    missing, extra = expected - stored, stored - expected
    if missing:
        name = min(missing)
        _fail(f"the tensor {name!r} of vertex {wanted[name].vertex!r} is missing{_more(missing)}")
    if extra:
        _fail(f"the tensor {min(extra)!r:.100} belongs to no vertex{_more(extra)}")


def _check_place(
    place: TensorPlace, entry: Entry, entries: dict[str, Entry], places: dict[str, TensorPlace],
) -> None:  # fmt: skip
    what = f"the tensor {place.name!r} of vertex {place.vertex!r}"
    dtype = DTYPES.get(entry.dtype)
    built = place.tensor
    if dtype is None or not (_are_floating(dtype, built.dtype) or dtype is built.dtype):
        _fail(f"{what} has type {entry.dtype!r:.30}, the op needs {built.dtype}")
    if entry.requires_grad and not (dtype.is_floating_point or dtype.is_complex):
        _fail(f"{what} has type {entry.dtype!r} and cannot require a gradient")
    if entry.persistent is not place.is_persistent:
        _fail(f"{what} is {'' if place.is_persistent else 'not '}persistent in the op but not so in the file")
    if entry.layout is not None and LAYOUT_DIMS.get(entry.layout) != built.dim():
        _fail(f"{what} of {built.dim()} dimensions cannot have the layout {entry.layout!r:.30}")
    if entry.alias is not None:
        _check_alias(place, entry, entries.get(entry.alias), places.get(entry.alias), what)


def _check_alias(
    place: TensorPlace, entry: Entry, other: Entry | None, owner: TensorPlace | None, what: str,
) -> None:  # fmt: skip
    if other is None or owner is None or other.alias is not None:
        _fail(f"{what} shares {entry.alias!r:.100}, which is not stored")
    if owner.tensor.shape != place.tensor.shape or (other.dtype, other.layout) != (entry.dtype, entry.layout):
        _fail(f"{what} shares {entry.alias!r:.100}, which has another shape or type")
    one_kind = place.is_parameter and owner.is_parameter and entry.requires_grad is other.requires_grad
    if entry.same and not one_kind:
        _fail(f"{what} cannot be one parameter with {entry.alias!r:.100}")


def _are_floating(dtype: torch.dtype, built: torch.dtype) -> bool:
    """Tell whether both dtypes are real or complex floating point.

    A model may have been saved in another precision than the one in which its modules are built.
    """
    return (dtype.is_floating_point or dtype.is_complex) and (built.is_floating_point or built.is_complex)


def _check_header(place: TensorPlace, entry: Entry, header: Any) -> None:
    shape = tuple(place.tensor.shape) + ((2,) if DTYPES[entry.dtype].is_complex else ())
    found = tuple(header.get_shape()), str(header.get_dtype())
    if found != (shape, _STORED_AS[entry.dtype]):
        _fail(
            f"the tensor {place.name!r} of vertex {place.vertex!r} is stored as {found[1]} {list(found[0])}, "
            f"the op needs {_STORED_AS[entry.dtype]} {list(shape)}"
        )


def _more(names: Iterable[str]) -> str:
    count = len(list(names)) - 1
    return f" (and {count} more)" if count else ""


def _fail(message: str) -> NoReturn:
    text = f"{message}; the file is damaged or was changed by another program"
    raise SerializationError(text)
