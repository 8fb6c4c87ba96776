"""Nesting a flat graph by the dotted names of its vertices."""

from __future__ import annotations

from torch_dag_core.errors import GraphError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.vertex import InnerVertex


def nest_scopes(dag: DagModule) -> tuple[str, ...]:
    """Replace the vertices of each submodule of the source model by a nested `DagModule`, innermost first.

    A scope with a single vertex stays flat. So does a scope that is not convex, where a path between two of its
    vertices leaves it.

    Returns:
        The names of the nested graphs.
    """
    wrapped: list[str] = []
    scopes = {vertex.name.rpartition(".")[0] for vertex in dag.inner_vertices}
    parents = {scope[: i + 1 + len(part)] for scope in scopes for i, part in _dotted(scope)}
    for scope in sorted(parents, key=lambda name: (-name.count("."), name)):
        members = [v for v in dag.inner_vertices if v.name.startswith(f"{scope}.")]
        if len(members) > 1 and _wrap(dag, members, scope):
            wrapped.append(scope)
    return tuple(wrapped)


def _dotted(scope: str) -> list[tuple[int, str]]:
    """Return, for each part of a dotted name, its offset minus 1 and its text."""
    result, offset = [], -1
    for part in filter(None, scope.split(".")):
        result.append((offset, part))
        offset += len(part) + 1
    return result


def _wrap(dag: DagModule, members: list[InnerVertex], scope: str) -> bool:
    try:
        dag.wrap_subgraph(members, name=scope)
    except GraphError:
        return False
    return True
