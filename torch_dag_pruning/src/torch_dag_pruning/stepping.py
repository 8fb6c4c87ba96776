"""A graph run one vertex at a time, each value freed after its last use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from torch_dag_core.dag import DagModule
from torch_dag_core.ops.stochastic import TrainingSwitch
from torch_dag_core.program import live_vertices
from torch_dag_core.vertex import InnerVertex, Vertex


class Stepper:
    """Runs what evaluation needs of a graph, in its order; the modules' own modes are left as they are.

    Attributes:
        outputs: The values that the graph returns, complete after the last step.
    """

    def __init__(self, dag: DagModule, inputs: Sequence[Tensor]) -> None:
        live = live_vertices(dag, training=False)
        self._vertices = [vertex for vertex in dag.inner_vertices if vertex in live]
        self._values: dict[Vertex, Any] = dict(zip(dag.input_vertices, inputs, strict=True))
        self._returned = dag.output_vertex(training=False).predecessors
        self._reads = Counter(p for vertex in self._vertices for p in vertex.predecessors)
        self._reads.update(self._returned)
        self._rest = iter(self._vertices)
        self.outputs: list[Any] = []

    @property
    def names(self) -> set[str]:
        """The vertices that are run."""
        return {vertex.name for vertex in self._vertices}

    @property
    def returned(self) -> list[str]:
        """The vertices whose values are the outputs."""
        return [vertex.name for vertex in self._returned]

    def steps(self) -> Iterator[tuple[InnerVertex, Any]]:
        """Run one vertex after the other and give its value; its operands are there until the next step."""
        for vertex in self._rest:
            with torch.no_grad():
                value = self._call(vertex)
            yield vertex, value
            for predecessor in vertex.predecessors:
                self._release(predecessor)
            if self._reads[vertex]:
                self._values[vertex] = value
        self.outputs = [self._values[vertex] for vertex in self._returned]

    def operands(self, vertex: InnerVertex) -> list[Tensor]:
        """Return the tensors that the vertex of the current step has read."""
        return [tensor for predecessor in vertex.predecessors for tensor in tensors_of(self._values.get(predecessor))]

    def _call(self, vertex: InnerVertex) -> Any:
        if isinstance(vertex.module, TrainingSwitch):
            return self._values[vertex.predecessors[0]]
        return vertex.module(*(self._values[predecessor] for predecessor in vertex.predecessors))

    def _release(self, vertex: Vertex) -> None:
        self._reads[vertex] -= 1
        if not self._reads[vertex]:
            self._values.pop(vertex, None)


def tensors_of(value: Any) -> list[Tensor]:
    """Return the tensors that a vertex gave: one, or those of a tuple."""
    if isinstance(value, Tensor):
        return [value]
    return [tensor for tensor in value if isinstance(tensor, Tensor)] if isinstance(value, (tuple, list)) else []
