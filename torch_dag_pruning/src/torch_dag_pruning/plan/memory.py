"""Peak memory of activations in evaluation, as a function of the number of slots that orbits keep."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from torch_dag_core.graph.builtin_ops import Constant
from torch_dag_core.graph.interpret import walk
from torch_dag_core.graph.vertex import InnerVertex, InputVertex, Vertex
from torch_dag_core.shape_run import ShapeRun
from torch_dag_pruning.analysis.polynomials import Variables
from torch_dag_pruning.analysis.propagation import nested_leaves
from torch_dag_pruning.axes import size

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis


@dataclass
class _Block:
    """Memory that one value occupies, or several of which all but the first are views.

    Attributes:
        fixed: Bytes for each element of the dimensions that may shrink.
        axes: Indices of these dimensions among all axes.
        first: Step in which it is made.
        last: Step after which it is freed.
    """

    fixed: int
    axes: tuple[int, ...]
    first: int
    last: int


@dataclass
class _Timeline:
    """Collects the blocks of memory while the vertices of a graph run one after the other."""

    variables: Variables
    blocks: dict[int, _Block] = field(default_factory=dict)
    steps: int = 0
    _of: dict[Vertex, list[int]] = field(default_factory=dict)

    def run(self, vertex: Vertex, tensors: list[tuple[Tensor, list[Any]]]) -> None:
        """Add a step in which a vertex reads its operands and returns tensors, given with their axes."""
        for read in getattr(vertex, "predecessors", ()):
            self.keep(read)
        self._of[vertex] = [self._block(tensor, axes) for tensor, axes in tensors]
        self.keep(vertex)
        self.steps += 1

    def keep(self, vertex: Vertex) -> None:
        """Keep what a vertex returned until this step."""
        for address in self._of.get(vertex, ()):
            self.blocks[address].last = self.steps

    def _block(self, tensor: Tensor, axes: list[Any]) -> int:
        address: int = tensor.untyped_storage()._cdata
        if address not in self.blocks:
            sizes = self.variables.sizes(axes)
            fixed = math.prod(each for each in sizes if isinstance(each, int))
            free = tuple(index for each in sizes if not isinstance(each, int) for (index,) in each.terms)
            self.blocks[address] = _Block(fixed * tensor.element_size(), free, self.steps, self.steps)
        return address


class PeakMemory:
    """The largest number of bytes that the activations of a graph occupy at once, for one sample in evaluation.

    Counted are the inputs, which the caller keeps, and what vertices return, from the vertex that makes it to the last
    one that reads it or a view of it. Not counted are parameters, buffers, and what an op needs only while it runs.
    """

    def __init__(self, analysis: Analysis) -> None:
        """Run the graph without data, to find out when each value is made and freed."""
        timeline = _Timeline(Variables(analysis.solver.find))
        held = []  # blocks are told apart by address, so none may be freed before the run ends
        for vertex, value in _values(analysis):
            held.append(value)
            timeline.run(vertex, _tensors(analysis, vertex, value))
        for vertex in analysis.dag.input_vertices:
            timeline.keep(vertex)
        self._blocks, self._steps = list(timeline.blocks.values()), timeline.steps
        self._axes, self._analysis = timeline.variables.axes, analysis

    def __call__(self, counts: Mapping[int, int]) -> float:
        """Return the bytes when each orbit keeps ``counts[orbit.atom.id]`` slots; all if it is left out."""
        completed = self._analysis._all_counts(counts)
        sizes = [size(axis, completed) for axis in self._axes]
        changes = [0] * (self._steps + 2)
        for block in self._blocks:
            amount = block.fixed * math.prod([sizes[index] for index in block.axes])
            changes[block.first] += amount
            changes[block.last + 1] -= amount
        return max(itertools.accumulate(changes)) / self._analysis._batch


def _values(analysis: Analysis) -> Iterator[tuple[Vertex, Any]]:
    """Iterate over the vertices that run in evaluation, with values without data; views share memory."""

    def call(vertex: InnerVertex, operands: tuple[Any, ...]) -> Any:
        # A new run for each call, because one returns equal results from a cache, in which they are views of others.
        return ShapeRun(analysis.registry)(vertex, operands)

    return walk(analysis.dag, analysis._sizes, call, training=False)


def _tensors(analysis: Analysis, vertex: Vertex, value: Any) -> list[tuple[Tensor, list[Any]]]:
    """Return the tensors that a vertex makes, with their axes; none for constants and for the whole result."""
    is_constant = isinstance(vertex, InnerVertex) and isinstance(vertex.module, Constant)
    if is_constant or not isinstance(vertex, (InnerVertex, InputVertex)):
        return []
    return list(zip(nested_leaves(value), analysis.axes_of(vertex.name), strict=True))
