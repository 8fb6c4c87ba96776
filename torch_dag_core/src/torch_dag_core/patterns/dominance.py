"""Dominator trees with jump pointers: common dominators in O(log depth) steps, built in one pass over a graph.

Build the tree from the roots on: ``child(common(place of each predecessor), vertex)``. Going the other way, from what
is returned back to the inputs, gives post-dominators.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.vertex import Vertex


@dataclass(frozen=True, eq=False)
class Place:
    """An item's place in a dominator tree; ``jump`` is an ancestor further up."""

    item: Any
    depth: int
    parent: Place | None
    jump: Place | None


ROOT = Place(None, 0, None, None)


def child(parent: Place, item: Any) -> Place:
    """Return the place of an item that ``parent`` dominates immediately. O(1)."""
    jump = parent
    far = parent.jump
    if far is not None and far.jump is not None and parent.depth - far.depth == far.depth - far.jump.depth:
        jump = far.jump
    return Place(item, parent.depth + 1, parent, jump)


def ancestor(place: Place, depth: int) -> Place:
    """Return the ancestor at a depth, or the place itself if it is not deeper. O(log depth)."""
    while place.depth > depth:
        assert place.parent is not None
        place = place.jump if place.jump is not None and place.jump.depth >= depth else place.parent
    return place


def dominates(first: Place, second: Place) -> bool:
    """Tell whether every path to ``second`` goes through ``first``; each goes through itself. O(log depth)."""
    return ancestor(second, first.depth) is first


def common(places: Iterable[Place]) -> Place:
    """Return the deepest place that dominates all of one or more. O(log depth) each."""
    return reduce(_common_of_two, places)


def _common_of_two(first: Place, second: Place) -> Place:
    depth = min(first.depth, second.depth)
    first, second = ancestor(first, depth), ancestor(second, depth)
    while first is not second:
        assert first.parent is not None
        assert second.parent is not None
        jumps = first.jump is not None and second.jump is not None and first.jump is not second.jump
        first, second = (first.jump, second.jump) if jumps else (first.parent, second.parent)  # type: ignore[assignment]
    return first


def dominators(dag: DagModule) -> dict[Vertex, Place]:
    """Return the place in the dominator tree of every vertex that depends on an input. O(n log n)."""
    places: dict[Vertex, Place] = {vertex: child(ROOT, vertex) for vertex in dag.input_vertices}
    for vertex in dag.inner_vertices:
        known = [places[predecessor] for predecessor in dict.fromkeys(vertex.predecessors) if predecessor in places]
        if known:
            places[vertex] = child(common(known), vertex)
    return places
