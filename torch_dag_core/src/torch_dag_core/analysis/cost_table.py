"""FLOPs and parameters of a graph, for each vertex and in total."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torch_dag_core.analysis.call_cost import call_cost
from torch_dag_core.conversion.example_inputs import as_arguments
from torch_dag_core.errors import InputError
from torch_dag_core.graph.conditions import hold
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.entry_checks import require_graphs
from torch_dag_core.graph.interpret import bind_inputs, walk
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_core.plugins.loading import default_registry
from torch_dag_core.plugins.registry import Registry
from torch_dag_core.shape_run import ShapeRun
from torch_dag_core.tracing.execution import META
from torch_dag_core.tracing.recording import Live
from torch_dag_core.tracing.tensors import tensors_in

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class VertexCost:
    """What one vertex costs in one call of the graph.

    Attributes:
        name: The vertex.
        op: Class of its module.
        outputs: Shapes of its results.
        flops: Floating-point operations: 2 for each multiply-accumulate, 1 for each element of elementwise work.
        parameters: Elements of its parameters; those of a module shared with an earlier vertex count there.
        dtypes: Types of its results.
        unknown: Classes of the modules, its own or those of a nested graph, whose cost no rule knows: one FLOP is
            counted for each element of their results.
    """

    name: str
    op: str
    outputs: Shapes
    flops: int
    parameters: int
    dtypes: tuple[torch.dtype, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class CostTable:
    """The cost of every vertex, in topological order."""

    rows: tuple[VertexCost, ...]

    @property
    def flops(self) -> int:
        """Floating-point operations of one call."""
        return sum(row.flops for row in self.rows)

    @property
    def parameters(self) -> int:
        """Elements of all parameters."""
        return sum(row.parameters for row in self.rows)

    @property
    def unknown(self) -> dict[str, tuple[str, ...]]:
        """The vertices whose cost no rule knows, by the class of the module that it is unknown of."""
        classes = dict.fromkeys(name for row in self.rows for name in row.unknown)
        return {name: tuple(row.name for row in self.rows if name in row.unknown) for name in classes}

    def __getitem__(self, name: str) -> VertexCost:
        return next(row for row in self.rows if row.name == name)

    def __str__(self) -> str:
        """Return one line a vertex that costs something, the total, and the ops whose cost is unknown."""
        if not self.unknown:
            return self._table()
        ops = "; ".join(f"{name} ({', '.join(vertices)})" for name, vertices in self.unknown.items())
        return f"{self._table()}\ncost unknown, counted as one FLOP per output element: {ops}"

    def _table(self) -> str:
        shown = [row for row in self.rows if row.flops or row.parameters]
        cells = [("vertex", "op", "outputs", "FLOPs", "parameters")]
        cells += [(row.name, row.op, _shown(row.outputs), f"{row.flops:,}", f"{row.parameters:,}") for row in shown]
        cells.append(("total", "", "", f"{self.flops:,}", f"{self.parameters:,}"))
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join(
            "  ".join(
                cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            )
            for row in cells
        )


def _shown(shapes: Shapes) -> str:
    return " ".join("x".join(map(str, shape)) or "scalar" for shape in shapes)


def flops(dag: DagModule, example_inputs: Any = None, *, registry: Registry | None = None) -> CostTable:
    """Count the FLOPs of one call in evaluation mode from shapes alone, without running the graph on data.

    Args:
        dag: The graph; vertices that evaluation does not need are left out.
        example_inputs: A tensor, a tuple of arguments, a dict of keyword arguments, or a pair of both. By default
            the sizes at which the model was traced, with a batch of one where the graph takes it.
        registry: The vocabulary with its cost rules; that of the installed plugins by default.

    Raises:
        InputError: the inputs are outside what the model was traced for, or none are given and none are known.
    """
    require_graphs("flops()", dag)
    registry = registry or default_registry()
    inputs = _own_inputs(dag) if example_inputs is None else _given_inputs(dag, example_inputs)
    rows, _ = _count(dag, inputs, ShapeRun(registry))
    return CostTable(tuple(rows))


def _given_inputs(dag: DagModule, example_inputs: Any) -> tuple[Tensor, ...]:
    args, kwargs = as_arguments(example_inputs)
    return tuple(tensor.to(META) for tensor in bind_inputs(dag, *args, **kwargs))


def _own_inputs(dag: DagModule) -> tuple[Tensor, ...]:
    specs = dag.input_spec.tensors
    if not dag.input_spec.knows_sizes:
        message = "the graph does not know any input sizes; pass example_inputs"
        raise InputError(message)
    shapes = [spec.example_shape or () for spec in specs]
    single = [
        (1, *shape[1:]) if spec.shape[:1] == (None,) else shape for spec, shape in zip(specs, shapes, strict=True)
    ]
    if hold(dag.input_spec.assumptions, single):
        shapes = single
    return tuple(torch.empty(s, dtype=spec.dtype, device=META) for s, spec in zip(shapes, specs, strict=True))


def _count(dag: DagModule, inputs: Sequence[Any], run: ShapeRun) -> tuple[list[VertexCost], Any]:
    """Return the costs of the vertices, and the result of the graph without data."""
    rows: list[VertexCost] = []
    counted: set[int] = set()

    def call(vertex: InnerVertex, operands: tuple[Any, ...]) -> Any:
        cost, unknown, value = _call(vertex, operands, run)
        parameters = {id(p): p.numel() for p in vertex.module.parameters() if id(p) not in counted}
        counted.update(parameters)
        op, tensors = type(vertex.module).__name__, tensors_in(value)
        shapes, types = tuple(_shapes(value)), tuple(tensor.dtype for tensor in tensors)
        rows.append(VertexCost(vertex.name, op, shapes, cost, sum(parameters.values()), types, unknown))
        return value

    *_, (_, result) = walk(dag, inputs, call, training=False)
    return rows, result


def _call(vertex: InnerVertex, operands: tuple[Any, ...], run: ShapeRun) -> tuple[int, tuple[str, ...], Any]:
    """Return the FLOPs of a vertex, the classes of modules whose cost is unknown, and the vertex's value."""
    module = vertex.module
    if isinstance(module, DagModule):
        rows, value = _count(module, operands, run)
        unknown = tuple(dict.fromkeys(name for row in rows for name in row.unknown))
        return sum(row.flops for row in rows), unknown, value
    value = run(vertex, operands)
    parameters: Mapping[str, Any] = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
    cost = call_cost(run.registry.for_module(module), module, _shapes(operands), _shapes(value), parameters)
    return int(cost.flops), () if cost.is_known else (type(module).__name__,), value


def _shapes(value: Live) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in tensors_in(value)]
