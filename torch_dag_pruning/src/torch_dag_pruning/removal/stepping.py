"""A graph run one vertex at a time, with what each vertex has just read at hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.interpret import live_inner_vertices, walk
from torch_dag_core.graph.program import chosen_operand
from torch_dag_core.graph.vertex import InnerVertex, OutputVertex


class Stepper:
    """Runs what evaluation needs of a graph, in its order; the modules' own modes are left as they are.

    Attributes:
        names: The vertices that are run.
        returned: The vertices whose values are the outputs.
        outputs: The values that the graph returns, complete after the last step.
    """

    def __init__(self, dag: DagModule, inputs: Sequence[Tensor]) -> None:
        self.names = {vertex.name for vertex in live_inner_vertices(dag, training=False)}
        self.returned = [vertex.name for vertex in dag.output_vertex(training=False).predecessors]
        self.outputs: list[Any] = []
        self._operands: tuple[Any, ...] = ()
        self._walk = walk(dag, inputs, self._call, training=False)

    def steps(self) -> Iterator[tuple[InnerVertex, Any]]:
        """Run one vertex after the other and give its value; its operands are there until the next step."""
        results: dict[str, Any] = {}
        for vertex, value in self._walk:
            if isinstance(vertex, OutputVertex):
                break
            if vertex.name in self.returned:
                results[vertex.name] = value
            if isinstance(vertex, InnerVertex):
                if chosen_operand(vertex, training=False) is not None:
                    self._operands = (value,)  # A choice between the modes is not called: it passes this on.
                yield vertex, value
        self.outputs = [results[name] for name in self.returned]

    def operands(self) -> list[Tensor]:
        """Return the tensors that the vertex of the current step has read."""
        return [tensor for operand in self._operands for tensor in tensors_of(operand)]

    @torch.no_grad()
    def _call(self, vertex: InnerVertex, operands: tuple[Any, ...]) -> Any:
        self._operands = operands
        return vertex.module(*operands)


def tensors_of(value: Any) -> list[Tensor]:
    """Return the tensors that a vertex gave: one, or those of a tuple."""
    if isinstance(value, Tensor):
        return [value]
    return [tensor for tensor in value if isinstance(tensor, Tensor)] if isinstance(value, (tuple, list)) else []
