"""Dominator trees, built in one pass over a graph, that find common dominators in O(log depth) steps.

A vertex dominates another if every path from the inputs to the other goes through it. Each node of the tree has a jump
pointer to an ancestor further up, as in a skip list. To build a tree, visit vertices in topological order and add each
as ``child(common(places of its predecessors), vertex)``. The same in reverse order, from the outputs to the inputs,
gives post-dominators.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

from torch_dag_core.graph.graph import Graph
from torch_dag_core.graph.vertex import Vertex


@dataclass(frozen=True, eq=False)
class Place:
    """A node of a dominator tree, with the item that it stands for; ``jump`` is an ancestor further up."""

    item: Any
    depth: int
    parent: Place | None
    jump: Place | None


ROOT = Place(None, 0, None, None)


def child(parent: Place, item: Any) -> Place:
    """Return a new node for an item whose immediate dominator is ``parent``. O(1)."""
    jump = parent
    far = parent.jump
    if far is not None and far.jump is not None and parent.depth - far.depth == far.depth - far.jump.depth:
        jump = far.jump
    return Place(item, parent.depth + 1, parent, jump)


def ancestor(place: Place, depth: int) -> Place:
    """Return the ancestor at the given depth; the node itself if it is not deeper. O(log depth)."""
    while place.depth > depth:
        assert place.parent is not None
        place = place.jump if place.jump is not None and place.jump.depth >= depth else place.parent
    return place


def dominates(first: Place, second: Place) -> bool:
    """Tell whether ``first`` dominates ``second``; every node dominates itself. O(log depth)."""
    return ancestor(second, first.depth) is first


def common(places: Iterable[Place]) -> Place:
    """Return the deepest node that dominates all of the given ones, at least one. O(log depth) each."""
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


def dominators(dag: Graph) -> dict[Vertex, Place]:
    """Return the node in the dominator tree of every vertex that depends on an input. O(n log n)."""
    places: dict[Vertex, Place] = {vertex: child(ROOT, vertex) for vertex in dag.input_vertices}
    for vertex in dag.inner_vertices:
        known = [places[predecessor] for predecessor in dict.fromkeys(vertex.predecessors) if predecessor in places]
        if known:
            places[vertex] = child(common(known), vertex)
    return places
