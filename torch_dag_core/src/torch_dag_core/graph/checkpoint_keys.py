"""State dict keys of a graph are the source model's: a lone tensor ``cls_token`` is not ``cls_token.value``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_core.ops.tensors import TensorHolder

UNUSED = "unused_keys"
"""Entry of a graph's provenance: keys of the source model that nothing in the graph reads."""
ROOTLESS = "rootless"
"""Entry of a graph's provenance: vertices whose tensors the source model has at its top level."""


def _renamed(graph: Any, prefix: str) -> Iterator[tuple[str, str]]:
    """Iterate over (own key, source key) where they differ: lone tensors, and those of the model itself."""
    rootless = frozenset(graph.provenance.get(ROOTLESS, ()))
    for vertex in graph.inner_vertices:
        if isinstance(vertex, InnerVertex) and isinstance(vertex.module, TensorHolder):
            yield f"{prefix}{vertex.name}.value", f"{prefix}{vertex.name}"
        elif vertex.name in rootless:
            for name in (*vertex.module._parameters, *vertex.module._buffers):
                yield f"{prefix}{vertex.name}.{name}", f"{prefix}{name}"


def to_source(graph: Any, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Rename the keys of a state dict that was just collected."""
    for own, source in _renamed(graph, prefix):
        if own in state:
            state[source] = state.pop(own)


def from_source(graph: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename the keys of a state dict that is about to be loaded, and drop those that nothing reads."""
    for own, source in _renamed(graph, prefix):
        if source in state:
            state[own] = state.pop(source)
    for key in graph.provenance.get(UNUSED, ()):
        state.pop(prefix + key, None)
