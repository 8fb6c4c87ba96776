"""What a graph returns, given as vertices in containers."""

from __future__ import annotations

from typing import Any

from torch_dag_core.errors import GraphError
from torch_dag_core.graph.structure import pack
from torch_dag_core.graph.vertex import Vertex


def output_template(structure: Any) -> tuple[Any, list[Vertex]]:
    """Return the template of a structure of vertices, and the vertices of its slots.

    Raises:
        GraphError: the structure holds something other than vertices, containers and constants, or no vertex.
    """
    found: list[Vertex] = []
    try:
        template = pack(structure, lambda value: isinstance(value, Vertex), found)
    except TypeError as error:
        message = f"outputs are vertices, in containers or alone: {error}"
        raise GraphError(message) from error
    if not found:
        message = f"{structure!r} holds no vertex; name the vertices whose values the model returns"
        raise GraphError(message)
    return template, found
