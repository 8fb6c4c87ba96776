"""The state dict of a graph has the keys of the source model: ``cls_token``, not ``cls_token.value``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from torch_dag_core.graph.builtin_ops import TensorHolder
from torch_dag_core.graph.vertex import InnerVertex

UNUSED = "unused_keys"
"""Entry of a graph's provenance: keys of the source model that nothing in the graph reads."""
MOVED = "moved"
"""Entry of a graph's provenance: the path in the source model of each vertex with another name; "" is the root."""


def note_move(graph: Any, name: str, path: str) -> None:
    """Record that the vertex ``name`` has the state dict keys of the source model's ``path``."""
    if name != path:
        graph.provenance.setdefault(MOVED, {})[name] = path


def _renamed(graph: Any) -> Iterator[tuple[str, str]]:
    """Iterate over (own key, source key) where they differ: for stored tensors, and for vertices that were renamed."""
    moved = graph.provenance.get(MOVED, {})
    for vertex in graph.inner_vertices:
        if isinstance(vertex, InnerVertex) and isinstance(vertex.module, TensorHolder):
            yield f"{vertex.name}.value", moved.get(vertex.name, vertex.name)
    for name, path in moved.items():
        module = _module_at(graph, name)
        if module is not None and not isinstance(module, TensorHolder):
            for key in module.state_dict(keep_vars=True):
                yield f"{name}.{key}", f"{path}.{key}" if path else key


def _module_at(graph: nn.Module, name: str) -> nn.Module | None:
    module: nn.Module | None = graph
    for part in name.split("."):
        module = None if module is None else module._modules.get(part)
    return module


def to_source(graph: Any, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Rename the keys of a state dict that was just collected; a tensor shared by several vertices is listed once."""
    for own, source in _renamed(graph):
        value = state.get(prefix + own)
        if value is not None and _is_same(state.setdefault(prefix + source, value), value):
            del state[prefix + own]


def _is_same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    tensors = isinstance(one, Tensor) and isinstance(other, Tensor) and one.shape == other.shape
    return tensors and one.untyped_storage()._cdata == other.untyped_storage()._cdata


def from_source(graph: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename the keys of a state dict that is about to be loaded, and drop those that no vertex has."""
    renamed = list(_renamed(graph))
    for own, source in renamed:
        if prefix + source in state:
            state.setdefault(prefix + own, state[prefix + source])
    tensors = (*graph.named_parameters(remove_duplicate=False), *graph.named_buffers(remove_duplicate=False))
    kept = {name for name, _ in tensors} if renamed else set()
    for key in (*(source for _, source in renamed), *graph.provenance.get(UNUSED, ())):
        if key not in kept:
            state.pop(prefix + key, None)
