"""Tensors inside the arguments and results of calls."""

from __future__ import annotations

from typing import overload

from torch import Tensor

from torch_dag_core.graph.nested import leaves, map_leaves
from torch_dag_core.tracing.recording import Argument, Live, Ref, Shape


def tensors_in(*values: Live) -> list[Tensor]:
    """List the tensors inside nested containers, in order."""
    return [leaf for leaf in leaves(values) if isinstance(leaf, Tensor)]


@overload
def with_refs(values: tuple[Live, ...], refs: dict[int, Ref]) -> tuple[Argument, ...]: ...
@overload
def with_refs(values: dict[str, Live], refs: dict[int, Ref]) -> dict[str, Argument]: ...
def with_refs(values: tuple[Live, ...] | dict[str, Live], refs: dict[int, Ref]) -> Argument:
    """Return arguments with the `Ref` of each tensor, found by the tensor's id, in its place."""
    replaced: Argument = map_leaves(values, lambda leaf: refs[id(leaf)] if isinstance(leaf, Tensor) else leaf)
    return replaced


def shape_of(value: Live) -> Shape | None:
    """Return the shape of a tensor, in plain integers; None for anything else."""
    return tuple(map(int, value.shape)) if isinstance(value, Tensor) else None


def storage_of(tensor: Tensor) -> int:
    """Return what tensors that share memory have in common; the id of a tensor that has no storage."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse layouts and wrapper classes have none
        return id(tensor)


def version_of(tensor: Tensor) -> int | None:
    """Return the number of in-place writes to a tensor; None for inference tensors, which do not count them."""
    return None if tensor.is_inference() else tensor._version
