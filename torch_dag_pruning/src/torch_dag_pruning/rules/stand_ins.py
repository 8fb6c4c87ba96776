"""Replacements for ops whose operands become empty (R2), shared by several axis rules."""

from __future__ import annotations

from typing import Any

from torch_dag_core.graph.builtin_ops import FreeParameter
from torch_dag_core.graph.nested import map_leaves
from torch_dag_core.graph.values import Size
from torch_dag_core.graph.vertex import InnerVertex, Vertex
from torch_dag_pruning.axes.stand_in import Emptied, StandIn


def bias_along(dim: int) -> StandIn:
    """Return the stand-in of a contraction module: its bias, broadcast along ``dim``, or zeros without a bias."""

    def stand_in(graph: Emptied, vertex: InnerVertex, _: set[int]) -> None:
        bias = graph.left_of(vertex, "bias")
        if bias is None:
            graph.fill(vertex, 0.0)
            return
        holder = FreeParameter(tuple(bias.shape), bias.dtype, value=bias)
        source = graph.dag.add_vertex(graph.dag.unique_name(f"{vertex.name}_bias"), holder)
        graph.spread(vertex, source, dim)

    return stand_in


def bias_operand_along(dim: int) -> StandIn:
    """Return the stand-in of a contraction function: its third operand, broadcast along ``dim``, or zeros."""

    def stand_in(graph: Emptied, vertex: InnerVertex, _: set[int]) -> None:
        if len(vertex.predecessors) < 3:
            graph.fill(vertex, 0.0)
        else:
            graph.spread(vertex, vertex.predecessors[2], dim)

    return stand_in


def zeros(graph: Emptied, vertex: InnerVertex, _: set[int]) -> None:
    """Replace a sum over an empty axis by zeros."""
    graph.fill(vertex, 0.0)


def restated(graph: Emptied, vertex: InnerVertex, empty: set[int]) -> InnerVertex | None:
    """Rewrite each `Size` read off an empty operand as one read off a vertex that is not empty."""
    op: Any = vertex.module
    operands: list[Vertex] = list(vertex.predecessors)
    fresh: list[Vertex] = []

    def over_live(value: Any) -> Any:
        if not isinstance(value, Size):
            return value
        factor, dims = Size(()), []
        for operand, dim in value.dims:
            if operand not in empty:
                dims.append((operand, dim))
                continue
            name = vertex.predecessors[operand].name
            found = graph.size_of(name, dim, vertex.name, fresh)[0].shifted(len(operands))
            factor = Size((), factor.num * found.num, factor.den * found.den)
            dims += found.dims
        return Size(tuple(dims), value.num * factor.num, value.den * factor.den, value.add)

    module = type(op)(**{name: map_leaves(value, over_live) for name, value in op.config().items()})
    if 0 in empty and getattr(op, "dtype", ...) is None:
        module.dtype = graph.dtype_of(vertex.name)
    # The operands of the op keep their numbers: an input takes the place of each empty one, and is not read.
    unread = graph.dag.input_vertices[0]
    kept = [unread if index in empty else operand for index, operand in enumerate(operands)]
    return graph.substitute(vertex, module, [*kept, *fresh])
