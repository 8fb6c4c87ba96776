"""Execution of a graph in steps of one vertex."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.interpret import Call, live_inner_vertices, walk
from torch_dag_core.graph.program import chosen_operand
from torch_dag_core.graph.vertex import InnerVertex, OutputVertex


class Stepper:
    """Runs a graph in evaluation order, one vertex per step, without changing the training modes of its modules.

    Attributes:
        names: Names of the vertices that are run.
        returned: Names of the vertices that the graph returns.
        outputs: The values that the graph returns, available after the last step.
    """

    def __init__(self, dag: DagModule, inputs: Sequence[Tensor], call: Call | None = None) -> None:
        """Prepare a run.

        Args:
            dag: The graph.
            inputs: One tensor for each input vertex.
            call: Computes a vertex from its operands; by default, it calls the vertex's module.
        """
        self._compute = call or _called
        self.names = {vertex.name for vertex in live_inner_vertices(dag, training=False)}
        self.returned = [vertex.name for vertex in dag.output_vertex(training=False).predecessors]
        self.outputs: list[Any] = []
        self._operands: tuple[Any, ...] = ()
        self._walk = walk(dag, inputs, self._call, training=False)

    def steps(self) -> Iterator[tuple[InnerVertex, Any]]:
        """Run one vertex after the other, and yield each with its value; `operands` belongs to the latest step."""
        results: dict[str, Any] = {}
        for vertex, value in self._walk:
            if isinstance(vertex, OutputVertex):
                break
            if vertex.name in self.returned:
                results[vertex.name] = value
            if isinstance(vertex, InnerVertex):
                if chosen_operand(vertex, training=False) is not None:
                    self._operands = (value,)  # A training switch is not called: it passes on one of its operands.
                yield vertex, value
        self.outputs = [results[name] for name in self.returned]

    def operands(self) -> list[Tensor]:
        """Return the tensors that the vertex of the latest step has read."""
        return [tensor for operand in self._operands for tensor in tensors_of(operand)]

    @torch.no_grad()
    def _call(self, vertex: InnerVertex, operands: tuple[Any, ...]) -> Any:
        self._operands = operands
        return self._compute(vertex, operands)


def _called(vertex: InnerVertex, operands: tuple[Any, ...]) -> Any:
    return vertex.module(*operands)


def tensors_of(value: Any) -> list[Tensor]:
    """Return the tensors of a vertex's value: the value itself, or those in the tuple."""
    if isinstance(value, Tensor):
        return [value]
    return [tensor for tensor in value if isinstance(tensor, Tensor)] if isinstance(value, (tuple, list)) else []
