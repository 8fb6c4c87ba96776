"""A set of vertices wrapped into a nested graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import takewhile
from typing import TYPE_CHECKING

from torch_dag_core.errors import GraphError
from torch_dag_core.graph.builtin_ops import GetItem
from torch_dag_core.graph.checkpoint_keys import note_move
from torch_dag_core.graph.inputs import InputSpec
from torch_dag_core.graph.values import Slot
from torch_dag_core.graph.vertex import InnerVertex, Vertex

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule


def wrap(graph: DagModule, chosen: Sequence[InnerVertex], name: str, nested: DagModule) -> InnerVertex:
    """Move distinct inner vertices into the empty graph ``nested``, and return the vertex that calls it.

    ``name``, which is free, becomes the name of that vertex; see `DagModule.wrap_subgraph`.
    """
    inside = set(chosen)
    order = graph.inner_vertices
    members = [vertex for vertex in order if vertex in inside]
    _check_not_empty(members, name)
    _check_convex(order, inside)
    _check_effects(graph, members, inside)
    sources = _sources(members)
    results = tuple(vertex for vertex in members if any(user not in inside for user, _ in vertex.uses))
    _nest(graph, nested, members, results, name)
    wrapped = InnerVertex(graph, name, nested)
    picks = _replace_uses(graph, results, inside, wrapped)
    for vertex in reversed(members):
        graph.remove_unused(vertex)
    graph._records.attach(wrapped, sources)
    graph._records.reorder([*graph.input_vertices, *_reordered(order, members, [wrapped, *picks])])
    return wrapped


def _check_not_empty(members: Sequence[InnerVertex], name: str) -> None:
    if not members:
        message = f"there are no vertices to wrap under {name!r}; give at least one"
        raise GraphError(message)


def _check_convex(order: Sequence[InnerVertex], inside: AbstractSet[Vertex]) -> None:
    after: set[Vertex] = set()
    for vertex in order:
        if vertex not in inside:
            if any(predecessor in inside or predecessor in after for predecessor in vertex.predecessors):
                after.add(vertex)
            continue
        between = next((predecessor for predecessor in vertex.predecessors if predecessor in after), None)
        if between is not None:
            message = (
                f"{between!r} lies on a path that leaves the vertices to wrap and comes back at {vertex!r}; "
                "wrap it too, or leave one side out"
            )
            raise GraphError(message)


def _check_effects(graph: DagModule, members: Sequence[InnerVertex], inside: AbstractSet[Vertex]) -> None:
    """Refuse to separate vertices that read and write one state, because their order would be lost."""
    for vertex in members:
        outside = (owner for owner in graph._records.registrations.owners(vertex.module) if owner not in inside)
        other = next(outside, None) if vertex.has_side_effect else None
        if other is not None:
            message = f"{vertex!r} writes or reads the state of {other!r}; wrap both or neither"
            raise GraphError(message)


def _nest(
    graph: DagModule, nested: DagModule, members: Sequence[InnerVertex], results: Sequence[InnerVertex], name: str
) -> None:
    """Fill the nested graph; the modules are shared with ``graph``, which is not touched."""
    names = _inner_names([vertex.name for vertex in members], name)
    inner: dict[Vertex, Vertex] = {}
    for source in _sources(members):
        inner[source] = nested.add_input(_input_name(len(inner), names))
    nested.input_spec = InputSpec().for_inputs(len(inner))
    for vertex, inner_name in zip(members, names, strict=True):
        operands = [inner[predecessor] for predecessor in vertex.predecessors]
        added = nested.add_vertex(nested.unique_name(inner_name), vertex.module, operands)
        note_move(nested, added.name, inner_name)
        inner[vertex] = added
        if graph._records.registrations.first_owner(vertex.module) is vertex:
            nested._records.registrations.put_first(added)
    template = tuple(Slot(index) for index in range(len(results)))
    nested.set_outputs(template[0] if len(results) == 1 else template, [inner[vertex] for vertex in results])


def _sources(members: Sequence[InnerVertex]) -> tuple[Vertex, ...]:
    """Return what the members read from outside, in order of first use."""
    inside = set(members)
    return tuple(dict.fromkeys(p for vertex in members for p in vertex.predecessors if p not in inside))


def _inner_names(names: Sequence[str], outer: str) -> list[str]:
    """Strip the longest dotted prefix that all names share with ``outer``."""
    depth = min(_common_depth(name, outer) for name in names)
    return [name.split(".", depth)[-1] for name in names]


def _common_depth(name: str, outer: str) -> int:
    """Return how many leading folders of ``name`` are those of ``outer``."""
    pairs = zip(name.split(".")[:-1], outer.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _input_name(index: int, taken: Sequence[str]) -> str:
    name = f"input_{index}"
    while any(other == name or other.startswith(f"{name}.") for other in taken):
        name = f"_{name}"
    return name


def _replace_uses(
    graph: DagModule, results: Sequence[InnerVertex], inside: AbstractSet[Vertex], wrapped: InnerVertex
) -> list[InnerVertex]:
    """Make the uses outside read ``wrapped``, or `GetItem` vertices of it, which are returned."""
    picks: list[InnerVertex] = []
    for index, vertex in enumerate(results):
        value = wrapped
        if len(results) > 1:
            pick = GetItem(index).train(graph.training)
            value = InnerVertex(graph, graph.unique_name(f"{wrapped.name}_{index}"), pick)
            graph._records.attach(value, [wrapped])
            picks.append(value)
        for user, operand in vertex.uses:
            if user not in inside:
                graph._records.link(user, operand, value)
    return picks


def _reordered(
    order: Sequence[InnerVertex], members: Sequence[InnerVertex], replacement: Sequence[InnerVertex]
) -> Iterator[InnerVertex]:
    """Put the new vertices where the last of the wrapped ones was: ties, and so random draws, keep their order."""
    gone, last = set(members), members[-1]
    for vertex in order:
        if vertex is last:
            yield from replacement
        elif vertex not in gone:
            yield vertex
