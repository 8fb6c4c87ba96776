"""How the tensors of a graph are stored and restored.

A tensor that several places share is stored once. For the other places, ``alias`` names the place under which it is
stored, and ``same`` tells whether both held the same parameter, or two that shared memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_core.errors import SerializationError
from torch_dag_core.graph.values import DTYPES
from torch_dag_core.serialization.walk import TensorPlace

_NAMES = {dtype: name for name, dtype in DTYPES.items()}
LAYOUTS = {"channels_last": torch.channels_last, "channels_last_3d": torch.channels_last_3d}
LAYOUT_DIMS = {"channels_last": 4, "channels_last_3d": 5}


def collect(places: Iterable[TensorPlace]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors to store, by name, and the table that describes all tensors.

    The tensors to store are contiguous and do not share memory. Those of the model are not changed.

    Raises:
        SerializationError: a tensor has no values, is a subclass of `Tensor`, or has a dtype or layout that cannot be
            stored; names the vertex.
    """
    stored: dict[str, Tensor] = {}
    table: dict[str, Any] = {}
    first: dict[Any, TensorPlace] = {}
    memory: set[int] = set()
    for place in places:
        tensor = place.tensor
        _refuse_unstorable(place, tensor)
        table[place.name] = entry = _entry(place, tensor)
        owner = first.setdefault(_identity(tensor), place)
        if owner is not place:
            entry["alias"] = owner.name
            if owner.tensor is tensor and owner.is_parameter and place.is_parameter:
                entry["same"] = True
            continue
        stored[place.name] = _standalone(tensor, memory)
    return stored, table


def _identity(tensor: Tensor) -> Any:
    """Return a key that is equal for two tensors if they are the same elements of the same memory."""
    if tensor.numel() == 0:
        return id(tensor)
    return tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride()


def _refuse_unstorable(place: TensorPlace, tensor: Tensor) -> None:
    what = f"{'parameter' if place.is_parameter else 'buffer'} {place.name!r} of vertex {place.vertex!r}"
    known = type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided and tensor.dtype in _NAMES
    if not known:
        message = (
            f"{what} is a {type(tensor).__name__} of {tensor.dtype}, which cannot be saved; "
            "replace it by a plain tensor"
        )
        raise SerializationError(message)
    if tensor.is_meta:
        message = f"{what} has no values, it is on the meta device; load weights before saving"
        raise SerializationError(message)


def _entry(place: TensorPlace, tensor: Tensor) -> dict[str, Any]:
    entry: dict[str, Any] = {"dtype": _NAMES[tensor.dtype]}
    if tensor.requires_grad is not place.is_parameter:
        entry["requires_grad"] = tensor.requires_grad
    if not place.is_persistent:
        entry["persistent"] = False
    layout = None if tensor.is_contiguous() else _layout(tensor)
    if layout is not None:
        entry["layout"] = layout
    return entry


def _layout(tensor: Tensor) -> str | None:
    for name, layout in LAYOUTS.items():
        if tensor.dim() == LAYOUT_DIMS[name] and tensor.is_contiguous(memory_format=layout):
            return name
    return None


def _standalone(tensor: Tensor, memory: set[int]) -> Tensor:
    """Return a contiguous real tensor in memory that no other stored tensor uses; complex ones get a last axis of 2."""
    plain = tensor.detach().resolve_conj().resolve_neg()
    if plain.is_complex():
        plain = torch.view_as_real(plain)
    plain = plain.contiguous()
    storage = plain.untyped_storage().data_ptr()
    if storage in memory and plain.numel():
        return plain.clone()
    memory.add(storage)
    return plain


def restore(mapped: Tensor, dtype: str, layout: str | None) -> Tensor:
    """Return a copy of a stored tensor with the dtype and memory layout that it had in the model.

    It is copied out of the mapped file for two reasons. Kernels choose their order of summation by the alignment of
    their operands, so that a mapped tensor would give other last bits; and a program that rewrites the file in place
    would change the model. It is copied as bytes, because kernels may crash on numbers that are not aligned.

    Args:
        mapped: The tensor in the file.
        dtype: Name of the dtype; complex tensors are stored as pairs of real numbers.
        layout: A key of `LAYOUTS`, or None for contiguous.
    """
    tensor = torch.empty(mapped.shape, dtype=mapped.dtype, device="cpu")
    if tensor.numel():
        tensor.view(-1).view(torch.uint8).copy_(mapped.view(-1).view(torch.uint8))
    if DTYPES[dtype].is_complex:
        tensor = torch.view_as_complex(tensor)
    return tensor if layout is None else tensor.contiguous(memory_format=LAYOUTS[layout])


def assign(place: TensorPlace, tensor: Tensor, *, requires_grad: bool) -> None:
    """Assign a tensor to its place in the rebuilt module."""
    if place.is_parameter:
        tensor = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad)
    elif requires_grad:
        tensor.requires_grad_()
    # With setattr, because recurrent modules update their list of weights when an attribute is assigned.
    setattr(place.owner, place.attribute, tensor)
