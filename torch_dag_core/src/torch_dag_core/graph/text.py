"""Graphs as readable text."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from torch_dag_core.graph.structure import written
from torch_dag_core.graph.values import Slot
from torch_dag_core.graph.vertex import InnerVertex

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule


def to_text(graph: DagModule) -> str:
    """Return one line for each vertex: ``name = Op(constants)(operands)``. O(n)."""
    lines = [f"{type(graph).__name__}("]
    for index, vertex in enumerate(graph.input_vertices):
        spec = graph.input_spec.tensors[index] if index < len(graph.input_spec.tensors) else None
        shape = "" if spec is None else f": {_shape(spec.shape)} {str(spec.dtype).removeprefix('torch.')}"
        lines.append(f"  {vertex.name}{shape}")
    lines += [f"  {_line(vertex)}" for vertex in graph.inner_vertices]
    for output in graph.output_vertices:
        names = [vertex.name for vertex in output.predecessors]
        lines.append(f"  {output.name}: {_structure(output.structure, names)}")
    return "\n".join([*lines, ")"])


def _line(vertex: InnerVertex) -> str:
    module = vertex.module
    label = type(module).__name__
    nested = hasattr(module, "inner_vertices")
    constants = f"{len(module.inner_vertices)} vertices" if nested else module.extra_repr()  # type: ignore[arg-type]
    operands = ", ".join(predecessor.name for predecessor in vertex.predecessors)
    return f"{vertex.name} = {label}({constants})({operands})"


def _shape(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("*" if size is None else str(size) for size in shape) + ")"


def _structure(structure: Any, names: list[str]) -> str:
    return written(structure, lambda leaf: names[leaf.index] if isinstance(leaf, Slot) else repr(leaf))


def summarize(graph: DagModule) -> str:
    """Return counts of ops and parameters, the inputs, and what the graph assumes of them."""
    ops = Counter(type(vertex.module).__name__ for vertex in graph.inner_vertices)
    parameters = sum(parameter.numel() for parameter in graph.parameters())
    lines = [f"{len(graph)} vertices, {parameters:,} parameters"]
    for vertex, spec in zip(graph.input_vertices, graph.input_spec.tensors, strict=False):
        lines.append(f"input {vertex.name}: {_shape(spec.shape)} (* is free)")
    lines += [f"holds where {assumption}" for assumption in graph.input_spec.assumptions]
    lines += ["computes in evaluation alone"] if graph.input_spec.evaluation_only else []
    lines += [f"note: {note}" for note in graph.input_spec.notes]
    lines += [f"{count:6d}  {name}" for name, count in ops.most_common()]
    return "\n".join(lines)
