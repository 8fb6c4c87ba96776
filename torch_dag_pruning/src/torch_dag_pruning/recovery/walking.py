"""Graphs that are run vertex by vertex over several batches at once: each vertex sees all of them before the next."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.interpret import walk
from torch_dag_core.graph.vertex import InnerVertex, OutputVertex, Vertex
from torch_dag_pruning.statistics.batches import Batch

Parts = list[Any]
"""A value of a vertex: one part for each batch."""


def inputs_of(dag: DagModule, batches: Sequence[Batch]) -> list[Parts]:
    """Return the values of the input vertices."""
    return [[batch.inputs[index] for batch in batches] for index in range(len(dag.input_vertices))]


@torch.no_grad()
def called(vertex: InnerVertex, operands: tuple[Parts, ...], count: int) -> Parts:
    """Return the value of a vertex over ``count`` batches."""
    if not operands:
        return [vertex.module()] * count
    return [vertex.module(*parts) for parts in zip(*operands, strict=True)]


class Ahead:
    """A graph that runs only as far as values are asked for; a value is there until it is taken.

    Attributes:
        outputs: The parts of each returned value, after `finish`.
    """

    def __init__(
        self, dag: DagModule, batches: Sequence[Batch], results: Collection[str], read: Collection[str]
    ) -> None:
        """Start at the inputs.

        Args:
            dag: The graph.
            batches: Its inputs.
            results: Vertices whose results will be asked for.
            read: Vertices whose first operands will be asked for.
        """
        self._count, self._results, self._read = len(batches), set(results), set(read)
        self._found: dict[tuple[str, str], Parts] = {}
        self._returned = [vertex.name for vertex in dag.output_vertex(training=False).predecessors]
        self.outputs: dict[str, Parts] = {}
        self._walk = walk(dag, inputs_of(dag, batches), self._call, training=False)

    def _call(self, vertex: InnerVertex, operands: tuple[Parts, ...]) -> Parts:
        if vertex.name in self._read:
            self._found["operand", vertex.name] = operands[0]
        return called(vertex, operands, self._count)

    def _steps(self) -> Iterator[None]:
        for vertex, value in self._walk:
            self._keep(vertex, value)
            yield

    def _keep(self, vertex: Vertex, value: Any) -> None:
        if isinstance(vertex, OutputVertex):
            return
        if vertex.name in self._results:
            self._found["result", vertex.name] = value
        if vertex.name in self._returned:
            self.outputs[vertex.name] = value

    def result(self, name: str) -> Parts:
        """Return what a vertex gives."""
        return self._reached("result", name)

    def operand(self, name: str) -> Parts:
        """Return the first operand of a vertex."""
        return self._reached("operand", name)

    def _reached(self, kind: str, name: str) -> Parts:
        steps = self._steps()
        while (kind, name) not in self._found:
            next(steps)
        return self._found[kind, name]

    def forget(self, name: str) -> None:
        """Drop the values of a vertex."""
        for kind in ("result", "operand"):
            self._found.pop((kind, name), None)

    def finish(self) -> None:
        """Run the rest."""
        for _ in self._steps():
            pass
