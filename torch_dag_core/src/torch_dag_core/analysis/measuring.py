"""What algorithms need to know of each vertex: its cost, and the size and type of its value at every batch size."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torch_dag_core.analysis.cost_table import CostTable, flops
from torch_dag_core.errors import InputError
from torch_dag_core.graph.inputs import TensorSpec
from torch_dag_core.graph.structure import unpack

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule

_BATCHES = (1, 2, 3)


@dataclass(frozen=True)
class Measured:
    """The vertices that evaluation needs, by name.

    Attributes:
        flops: FLOPs of one sample, or of the smallest batch that the graph takes; inner vertices only.
        values: Sizes and types of what a vertex returns, at two batch sizes where the batch is free: equal for two
            vertices only if they are equal at all batch sizes.
        shapes: Sizes of the first, or only, tensor that a vertex returns for one sample.
    """

    flops: Mapping[str, int]
    values: Mapping[str, Hashable]
    shapes: Mapping[str, tuple[int, ...]]


def flat(dag: DagModule) -> DagModule:
    """Return the graph itself if it holds no nested graph, else a flat copy."""
    nested = any(hasattr(vertex.module, "inner_vertices") for vertex in dag.inner_vertices)
    return dag.flatten() if nested else dag


def sample_shape(dag: DagModule, given: Sequence[int] | None) -> tuple[int, ...]:
    """Return the shape of one sample of the first input: the given one, or that at which the model was traced.

    Raises:
        InputError: neither is known.
    """
    if given is not None:
        return tuple(given)
    remembered = dag.input_spec.tensors[0].example_shape if dag.input_spec.tensors else None
    if remembered is None:
        message = "the graph does not know the size of its input; pass input_shape_without_batch"
        raise InputError(message)
    return remembered[1:]


def measure(dag: DagModule, input_shape_without_batch: Sequence[int] | None = None) -> Measured:
    """Measure a flat graph without running it on data. Mutates nothing.

    Args:
        dag: The graph.
        input_shape_without_batch: Shape of one sample of the only input; None takes all sizes that the graph remembers.

    Raises:
        InputError: the graph does not take this size, or none is known.
    """
    shape = sample_shape(dag, input_shape_without_batch)
    specs = dag.input_spec.tensors or (TensorSpec(torch.float32, (None, *[None] * len(shape)), (1, *shape)),)
    if input_shape_without_batch is not None and len(specs) > 1:
        message = f"the graph takes {len(specs)} tensors, of which input_shape_without_batch describes one; pass None"
        raise InputError(message)
    sizes = [shape if input_shape_without_batch is not None else (spec.example_shape or ())[1:] for spec in specs]
    inputs = [tuple(_blank(spec, size, n) for spec, size in zip(specs, sizes, strict=True)) for n in _batches(specs)]
    fitting = [each for each in inputs if _fits(dag, each)]
    return _joined(dag, [_run(dag, each) for each in (fitting or inputs)[:2]])


@dataclass(frozen=True)
class _Run:
    inputs: tuple[Tensor, ...]
    table: CostTable


def _batches(specs: Sequence[TensorSpec]) -> tuple[int | None, ...]:
    is_free = any(spec.shape[:1] == (None,) for spec in specs)
    return _BATCHES if is_free else (None,)


def _fits(dag: DagModule, inputs: Sequence[Tensor]) -> bool:
    """Tell whether the graph holds at these sizes."""
    from torch_dag_core.graph.conditions import hold

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


def _joined(dag: DagModule, runs: Sequence[_Run]) -> Measured:
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
    costs = {row.name: row.flops for row in runs[0].table.rows}
    return Measured(costs, {name: tuple(each) for name, each in values.items()}, shapes)
