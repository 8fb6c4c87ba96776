"""Facts about the vertices of a graph that algorithms need: costs, and the sizes and dtypes of values."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torch_dag_core.analysis.cost_table import CostTable, flops
from torch_dag_core.errors import InputError
from torch_dag_core.graph.conditions import hold
from torch_dag_core.graph.inputs import TensorSpec
from torch_dag_core.graph.program import chosen_operand
from torch_dag_core.graph.structure import unpack

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule

_BATCHES = (1, 2, 3)


@dataclass(frozen=True)
class VertexFacts:
    """Facts about the vertices that run in evaluation mode, by their names.

    Attributes:
        flops: FLOPs for one sample, or for the smallest batch that the graph accepts; inner vertices only.
        values: A key for the sizes and dtypes of a vertex's results. If the batch size is free, they are taken at two
            batch sizes, so that two keys are equal only if the sizes are equal at every batch size.
        shapes: Shape of the first or only tensor that a vertex returns, with the batch size that ``flops`` is for.
    """

    flops: Mapping[str, int]
    values: Mapping[str, Hashable]
    shapes: Mapping[str, tuple[int, ...]]


def flattened(dag: DagModule) -> DagModule:
    """Return the graph itself if it contains no nested graph, else a copy in which nested graphs are inlined."""
    nested = any(hasattr(vertex.module, "inner_vertices") for vertex in dag.inner_vertices)
    return dag.flatten() if nested else dag


def sample_shape(dag: DagModule, given: Sequence[int] | None) -> tuple[int, ...]:
    """Return the shape of one sample of the first input: the given one, or that of the trace.

    Raises:
        InputError: none is given, and the graph does not record the sizes of its trace.
    """
    if given is not None:
        return tuple(given)
    remembered = dag.input_spec.tensors[0].example_shape if dag.input_spec.tensors else None
    if remembered is None:
        message = "the graph does not know the size of its input; pass input_shape"
        raise InputError(message)
    return remembered[1:]


def vertex_facts(dag: DagModule, input_shape: Sequence[int] | None = None) -> VertexFacts:
    """Collect the facts of a graph without nested graphs. Runs it without data and changes nothing.

    Args:
        dag: The graph.
        input_shape: Shape of one sample of the only input, without the batch; None takes the sizes of the trace.

    Raises:
        InputError: the graph does not accept this size, or no size is known.
    """
    shape = sample_shape(dag, input_shape)
    specs = dag.input_spec.tensors or (TensorSpec(torch.float32, (None, *[None] * len(shape)), (1, *shape)),)
    if input_shape is not None and len(specs) > 1:
        message = f"the graph takes {len(specs)} tensors, of which input_shape describes one; pass None"
        raise InputError(message)
    sizes = [shape if input_shape is not None else (spec.example_shape or ())[1:] for spec in specs]
    inputs = [tuple(_blank(spec, size, n) for spec, size in zip(specs, sizes, strict=True)) for n in _batches(specs)]
    fitting = [each for each in inputs if _fits(dag, each)]
    return _combined(dag, [_run(dag, each) for each in (fitting or inputs)[:2]])


@dataclass(frozen=True)
class _Run:
    inputs: tuple[Tensor, ...]
    table: CostTable


def _batches(specs: Sequence[TensorSpec]) -> tuple[int | None, ...]:
    is_free = any(spec.shape[:1] == (None,) for spec in specs)
    return _BATCHES if is_free else (None,)


def _fits(dag: DagModule, inputs: Sequence[Tensor]) -> bool:
    """Tell whether the graph's conditions on input sizes hold."""
    return hold(dag.input_spec.assumptions, [tensor.shape for tensor in inputs])


def _run(dag: DagModule, inputs: tuple[Tensor, ...]) -> _Run:
    parameters = dag.input_spec.for_inputs(len(inputs)).parameters
    arguments = tuple(unpack(parameter.structure, inputs) for parameter in parameters)
    return _Run(inputs, flops(dag, arguments))


def _blank(spec: TensorSpec, size: Sequence[int], batch: int | None) -> Tensor:
    fixed = spec.shape[0] if spec.shape else None
    first = batch if fixed is None else fixed
    shape = size if first is None or not spec.shape else (first, *size)
    return torch.empty(tuple(shape), dtype=spec.dtype, device="meta")


def _combined(dag: DagModule, runs: Sequence[_Run]) -> VertexFacts:
    values: dict[str, list[Any]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for run in runs:
        for vertex, tensor in zip(dag.input_vertices, run.inputs, strict=True):
            values.setdefault(vertex.name, []).append(((tuple(tensor.shape),), (tensor.dtype,)))
            shapes.setdefault(vertex.name, tuple(tensor.shape))
        for row in run.table.rows:
            values.setdefault(row.name, []).append((row.outputs, row.dtypes))
            if row.outputs:
                shapes.setdefault(row.name, row.outputs[0])
    for switch in dag.inner_vertices:
        passed = chosen_operand(switch, training=False)
        if passed is not None and passed.name in values:
            values[switch.name] = values[passed.name]
            shapes[switch.name] = shapes[passed.name]
    costs = {row.name: row.flops for row in runs[0].table.rows}
    return VertexFacts(costs, {name: tuple(each) for name, each in values.items()}, shapes)
