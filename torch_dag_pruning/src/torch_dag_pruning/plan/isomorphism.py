"""Orbits that play the same part in a graph, whatever their sizes (isomorphic pruning, arXiv:2407.04616)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch_dag_core.graph.vertex import InnerVertex

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis, Orbit

Class = tuple[tuple[str, str, int], ...]
"""The ops, tensors and dimensions that an orbit occurs in, in order."""


def isomorphic_classes(analysis: Analysis) -> dict[Class, list[str]]:
    """Return the keys of the orbits of each class."""
    found: dict[Class, list[str]] = {}
    for orbit in analysis.orbits:
        found.setdefault(_class(analysis, orbit), []).append(orbit.key)
    return found


def _class(analysis: Analysis, orbit: Orbit) -> Class:
    return tuple(sorted((_op(analysis, place.vertex), place.tensor, place.dim) for place in orbit.places))


def _op(analysis: Analysis, name: str) -> str:
    vertex = analysis.dag.get_vertex_by_name(name)
    assert isinstance(vertex, InnerVertex)
    spec = analysis.registry.for_module(vertex.module)
    return type(vertex.module).__name__ if spec is None else spec.key
