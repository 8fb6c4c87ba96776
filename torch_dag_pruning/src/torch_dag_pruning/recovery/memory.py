"""How much memory a repair takes, known before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.interpret import live_inner_vertices
from torch_dag_core.graph.program import chosen_operand
from torch_dag_core.graph.vertex import Vertex
from torch_dag_core.plugins.registry import Registry
from torch_dag_pruning.analysis.propagation import nested_leaves
from torch_dag_pruning.statistics.contractions import contraction_of


def live_bytes(dag: DagModule, values: Mapping[Vertex, Any]) -> int:
    """Return the largest total size of the values that are alive at one time in evaluation, in bytes.

    Args:
        dag: The graph.
        values: Of each vertex; their data is not looked at.
    """
    order = live_inner_vertices(dag, training=False)
    last: dict[Vertex, int] = {}
    for step, vertex in enumerate(order):
        chosen = chosen_operand(vertex, training=False)
        reads: tuple[Vertex, ...] = vertex.predecessors if chosen is None else (chosen,)
        last |= dict.fromkeys(reads, step)
    last |= dict.fromkeys(dag.output_vertex(training=False).predecessors, len(order))
    ending: dict[int, list[Vertex]] = {}
    for gone, step in last.items():
        ending.setdefault(step, []).append(gone)
    live = sum(_size(values[vertex]) for vertex in dag.input_vertices)
    most = live
    for step, made in enumerate(order):
        live += _size(values[made]) if made in last else 0
        most = max(most, live)
        live -= sum(_size(values[each]) for each in ending.get(step, ()))
    return most


def largest_system(dag: DagModule, registry: Registry) -> int:
    """Return the size of what solving the widest layer takes: four matrices over its columns, in double precision."""
    sizes = [0]
    for vertex in live_inner_vertices(dag, training=False):
        contraction = contraction_of(vertex, registry)
        if contraction is not None:
            module: Any = vertex.module
            groups, _, columns = contraction.matrix(module, module.weight.detach()).shape
            sizes.append(4 * 8 * groups * columns**2)
    return max(sizes)


def _size(value: Any) -> int:
    return sum(leaf.numel() * leaf.element_size() for leaf in nested_leaves(value) if isinstance(leaf, Tensor))
