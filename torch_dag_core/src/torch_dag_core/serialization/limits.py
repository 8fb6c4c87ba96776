"""Limits on the size and depth of graphs in files, checked when writing too: what can be written can be read."""

from __future__ import annotations

from torch import nn

from torch_dag_core.errors import SerializationError
from torch_dag_core.graph.dag import DagModule

# The methods of nn.Module recurse over its tree, and fail for deeper ones.
MAX_DEPTH = 100
# Counts the vertices of a nested graph once for each use: a small file could otherwise stand for 2**1000 vertices.
MAX_VERTICES = 10_000_000
# Linking the operands of one vertex takes time quadratic in their number.
MAX_OPERANDS = 5_000
MAX_NAME_LENGTH = 1_000


def check_name(name: str) -> None:
    """Raise a `SerializationError` for a vertex name that is too long or too deep, or cannot be stored."""
    if len(name) > MAX_NAME_LENGTH or name.count(".") >= MAX_DEPTH:
        message = f"the vertex name {name!r:.60} is longer than {MAX_NAME_LENGTH} characters or {MAX_DEPTH} levels"
        raise SerializationError(message)
    if name == "__metadata__":
        message = f"{name!r} cannot name a vertex: it is the name of the metadata in a file"
        raise SerializationError(message)
    try:
        name.encode()
    except UnicodeEncodeError as error:
        message = f"the vertex name {name!r:.60} is no valid Unicode"
        raise SerializationError(message) from error


def check_operand_count(name: str, count: int) -> None:
    """Raise a `SerializationError` for a vertex or output with more than `MAX_OPERANDS` operands."""
    if count > MAX_OPERANDS:
        message = f"{name!r:.60} has {count} operands, a file may have {MAX_OPERANDS} a vertex; combine them in steps"
        raise SerializationError(message)


class Extent:
    """Adds up the depth and the number of vertices of graphs, inner graphs first."""

    def __init__(self) -> None:
        self._known: dict[nn.Module, tuple[int, int]] = {}

    def add(self, graph: DagModule) -> None:
        """Add a graph whose nested graphs were added before.

        Raises:
            SerializationError: it is deeper than `MAX_DEPTH` or has more than `MAX_VERTICES` vertices.
        """
        depth, count = 0, 0
        for vertex in graph.inner_vertices:
            inner_depth, inner_count = self._known.get(vertex.module, (1, 0))
            depth = max(depth, vertex.name.count(".") + 1 + inner_depth)
            count += 1 + inner_count
        if depth > MAX_DEPTH or count > MAX_VERTICES:
            message = (
                f"a graph has modules {depth} levels deep and {count} vertices; "
                f"the limits are {MAX_DEPTH} and {MAX_VERTICES}"
            )
            raise SerializationError(message)
        self._known[graph] = (depth, count)
