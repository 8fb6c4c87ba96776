"""The invariants of a graph, recomputed from scratch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch_dag_core.errors import GraphError
from torch_dag_core.graph.ordering import topological
from torch_dag_core.graph.registration import registrations
from torch_dag_core.graph.vertex import InnerVertex, UserVertex, Vertex

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule


def verify(graph: DagModule) -> None:
    """Raise `GraphError` for the first invariant that does not hold. O(n)."""
    _check_edges(graph)
    _check_modules(graph)
    topological(graph._records.vertices.values())


def _check_edges(graph: DagModule) -> None:
    uses: dict[Vertex, set[tuple[UserVertex, int]]] = {vertex: set() for vertex in graph._records.vertices.values()}
    users = [vertex for vertex in graph._records.vertices.values() if isinstance(vertex, UserVertex)]
    for user in (*users, *graph.output_vertices):
        for index, predecessor in enumerate(user.predecessors):
            if predecessor not in uses:
                message = f"{user!r} reads {predecessor!r}, which is not in the graph"
                raise GraphError(message)
            uses[predecessor].add((user, index))
    for name, vertex in graph._records.vertices.items():
        if vertex.name != name or vertex.dag is not graph or set(vertex.uses) != uses[vertex]:
            message = f"the records of {vertex!r} do not agree with the graph's edges"
            raise GraphError(message)


def _check_modules(graph: DagModule) -> None:
    names, known = registrations(graph), graph._records.registrations
    inner = [vertex for vertex in graph._records.vertices.values() if isinstance(vertex, InnerVertex)]
    for vertex in inner:
        owners = known.owners(vertex.module)
        if vertex not in owners or names.get(next(iter(owners)).name) is not vertex.module:
            message = f"the module of {vertex!r} is not registered"
            raise GraphError(message)
    if len(known) != len(inner):
        message = "modules are recorded for vertices that are not in the graph"
        raise GraphError(message)
