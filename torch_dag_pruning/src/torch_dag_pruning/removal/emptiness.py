"""Orbits that vanish whole: what is deleted, and what stands for an op that contracts over nothing.

A vertex with an empty axis is deleted. One that reads a deleted vertex and still has a value contracts over the empty
axis, so its value is its bias, or zeros; a concatenation just drops the operand. Whatever is made here is made of
ops of the core's vocabulary, and no module is ever built with a size of 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

import torch
from torch import Tensor, nn

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.values import Size
from torch_dag_core.graph.vertex import InnerVertex, Vertex
from torch_dag_core.ops import creation, layout
from torch_dag_core.plugins.registry import Registry
from torch_dag_pruning.analysis.installed_rules import stand_ins
from torch_dag_pruning.analysis.value_axes import ValueAxes, is_constant
from torch_dag_pruning.axes import Axis
from torch_dag_pruning.axes.stand_in import StandIn
from torch_dag_pruning.errors import RemovalError
from torch_dag_pruning.removal.free_sizes import FreeSizes
from torch_dag_pruning.removal.kept import Kept
from torch_dag_pruning.removal.rebuilding import rescaled


@dataclass
class Emptiness:
    """Decides which vertices vanish, and replaces those that read them.

    Attributes:
        dag: The graph that is cut down.
        axes: The axes of its values, as they were.
        kept: What stays of any axis.
        inputs: Tensors of the sizes that the axes have.
        registry: The vocabulary.
        gone: Names of the vertices without an element left.
        made: Names of the vertices that were put in place of others.
    """

    dag: DagModule
    axes: ValueAxes
    kept: Kept
    inputs: Sequence[Tensor]
    registry: Registry
    gone: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)

    def find(self) -> None:
        """Fill ``gone``."""
        self.order = [vertex.name for vertex in self.dag.vertices]
        for vertex in self.dag.inner_vertices:
            # A constant may be empty for one of its users only.
            values = [] if is_constant(vertex) else self.axes.outputs(vertex.name)
            if values and all(map(self.is_empty, values)):
                self.gone.add(vertex.name)

    def is_empty(self, axes: Iterable[Axis]) -> bool:
        """Tell whether a tensor with these axes has no element left."""
        return any(self.kept.size(axis) == 0 for axis in axes)

    def empty_operands(self, vertex: InnerVertex) -> set[int]:
        """Return which operands of a vertex have no element left."""
        operands = range(len(vertex.predecessors))
        return {index for index in operands if self.is_empty(self.axes.operand(vertex, index))}

    def resolve(self, vertex: InnerVertex) -> InnerVertex | None:
        """Make a vertex that stays independent of empty values.

        Returns:
            The vertex if it still has to be rebuilt, None if something else stands for it now.

        Raises:
            RemovalError: no stand-in is known for the op without its operands.
        """
        empty = self.empty_operands(vertex)
        if not empty:
            return vertex
        spec = self.registry.for_module(vertex.module)
        stand_in = None if spec is None else self.stand_ins.get(spec.key)
        if stand_in is None:
            message = (
                f"{vertex.name!r} ({type(vertex.module).__name__}) reads a value of which nothing is left; "
                "keep a slot of the orbit that it contracts over"
            )
            raise RemovalError(vertex.name, message)
        return stand_in(self, vertex, empty)

    # Making replacements ---------------------------------------------------------------------------------------

    @cached_property
    def stand_ins(self) -> dict[str, StandIn]:
        """What takes the place of an op, by its key."""
        return stand_ins(self.registry)

    @cached_property
    def sizes(self) -> FreeSizes:
        """Sizes at two inputs, of the graph as it was."""
        return FreeSizes.of(self.axes.analysis.dag, self.inputs, self.registry)

    def substitute(self, vertex: InnerVertex, module: nn.Module, operands: Sequence[Vertex]) -> InnerVertex:
        """Put another module with other operands in the place of a vertex, under its name."""
        name = vertex.name
        fresh = self.dag.add_vertex(self.dag.unique_name(f"{name}_without_operands"), module, operands)
        module.train(vertex.module.training)
        self.dag.replace_uses(vertex, fresh)
        self.dag.remove_unused(vertex)
        self.dag.rename(fresh, name)
        self.made.add(name)
        return fresh

    def skip(self, vertex: InnerVertex, operand: int) -> None:
        """Let the users of a vertex read one of its operands instead."""
        self.dag.replace_uses(vertex, vertex.predecessors[operand])
        self.gone.add(vertex.name)

    def left_of(self, vertex: InnerVertex, name: str) -> Tensor | None:
        """Return the kept part of a module's own tensor, None if the module has none of this name."""
        tensor: Tensor | None = getattr(vertex.module, name)
        if tensor is None:
            return None
        return self.kept.take_learned(tensor, self.axes.analysis.relations[vertex.name].parameters[name])

    def dtype_of(self, value: str) -> torch.dtype:
        """Return the element type of a vertex's first result, as the graph was."""
        return self.sizes.dtypes[value][0]

    def live_before(self, name: str) -> list[str]:
        """Return the vertices that are left and come before one, so that it may read them."""
        before = self.order[: self.order.index(name)]
        return [other for other in before if other not in self.gone and len(self.sizes.here.get(other, ())) == 1]

    def shape_of(self, value: str, reader: str, first: int) -> tuple[list[int | Size], list[Vertex]]:
        """Return what is left of a value's shape, over live vertices.

        Args:
            value: Name of a vertex, as the graph was.
            reader: The vertex that states the shape.
            first: Number of the first of the live vertices among its operands.

        Returns:
            The shape, and the live vertices.
        """
        likes: list[Vertex] = []
        shape: list[int | Size] = []
        for dim, axis in enumerate(self.axes.outputs(value)[0]):
            if not self.sizes.is_free(value, dim):
                shape.append(self.kept.size(axis))
                continue
            size, left = self.size_of(value, dim, reader, likes)
            shape.append(rescaled(reader, size, self.kept.ratio(axis) / left).shifted(first))
        return shape, likes

    def size_of(self, value: str, dim: int, reader: str, likes: list[Vertex]) -> tuple[Size, Fraction]:
        """State a free dimension, as it was, over a live vertex, which is added to ``likes``.

        Returns:
            The size, and how much of it would be left if it were read off the vertex as that is now.
        """
        source, size = self.sizes.stated(value, dim, self.live_before(reader))
        like = self.dag.get_vertex_by_name(source)
        if like not in likes:
            likes.append(like)
        axes = self.axes.outputs(source)[0]
        left = math.prod((self.kept.ratio(axes[place]) for _, place in size.dims), start=Fraction(1))
        return size.shifted(likes.index(like)), left

    def fill(self, vertex: InnerVertex, value: float) -> None:
        """Make a vertex a constant."""
        self.substitute(vertex, *self.constant(vertex.name, vertex.name, value))

    def constant(
        self, value: str, reader: str, fill: float, last: int | None = None
    ) -> tuple[creation.Full, list[Vertex]]:
        """Return a module and operands that give a constant in the shape of a value, or with another last size."""
        shape, likes = self.shape_of(value, reader, 0)
        if last is not None:
            shape[-1] = last
        likes = likes or [self.dag.input_vertices[0]]
        dtype = self.dtype_of(value)
        follows = self.dtype_of(likes[0].name) == dtype
        return creation.Full(tuple(shape), fill, None if follows else dtype), likes

    def spread(self, vertex: InnerVertex, source: Vertex, dim: int) -> None:
        """Make a vertex the broadcast of a vector along one of its dimensions."""
        axes = self.axes.outputs(vertex.name)[0]
        behind = len(axes) - 1 - dim % len(axes)
        if behind:
            module = layout.Reshape((-1, *[1] * behind))
            source = self.dag.add_vertex(self.dag.unique_name(f"{source.name}_reshape"), module, [source])
        shape, likes = self.shape_of(vertex.name, vertex.name, 1)
        self.substitute(vertex, layout.Expand(tuple(shape)), [source, *likes])
