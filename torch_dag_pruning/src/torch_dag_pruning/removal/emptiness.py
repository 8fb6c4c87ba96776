"""Orbits of which a plan keeps no slot: deletion of empty vertices, and replacement of their readers (R2).

A vertex whose results are all empty is deleted. A vertex that reads an empty value but has a result that is not empty
is replaced by the stand-in that its axis rule names: a contraction becomes its bias or zeros, a concatenation drops the
operand. Stand-ins consist of ops of the core vocabulary; no module of size 0 is ever built.
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
    """Finds the vertices that become empty, and replaces those that read them.

    Attributes:
        dag: The graph that is made smaller; it is changed.
        axes: The axes of all values of the analysed graph.
        kept: The kept slots of any axis.
        inputs: Example inputs, as the analysis used them.
        registry: The op registry.
        gone: Names of the vertices to delete, with those that `skip` bypassed.
        made: Names of the vertices that were replaced.
    """

    dag: DagModule
    axes: ValueAxes
    kept: Kept
    inputs: Sequence[Tensor]
    registry: Registry
    gone: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)

    def find(self) -> None:
        """Fill ``gone`` with the vertices whose results are all empty."""
        self.order = [vertex.name for vertex in self.dag.vertices]
        for vertex in self.dag.inner_vertices:
            # Constants are divided among their readers, and may be empty for one of them only.
            values = [] if is_constant(vertex) else self.axes.outputs(vertex.name)
            if values and all(map(self.is_empty, values)):
                self.gone.add(vertex.name)

    def is_empty(self, axes: Iterable[Axis]) -> bool:
        """Return whether a tensor with these axes keeps no element; one that had none before does not count."""
        return any(axis.n > 0 and self.kept.size(axis) == 0 for axis in axes)

    def empty_operands(self, vertex: InnerVertex) -> set[int]:
        """Return the indices of the operands of a vertex that keep no element."""
        operands = range(len(vertex.predecessors))
        return {index for index in operands if self.is_empty(self.axes.operand(vertex, index))}

    def resolve(self, vertex: InnerVertex) -> InnerVertex | None:
        """Replace a vertex that reads empty values by its stand-in.

        Returns:
            The vertex that still has to be rebuilt with smaller tensors, which is ``vertex`` if no operand is empty;
            None if its replacement is final.

        Raises:
            RemovalError: the op has no stand-in.
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
        """The stand-in of each op that has one, by the key of the op."""
        return stand_ins(self.registry)

    @cached_property
    def sizes(self) -> FreeSizes:
        """The shapes of the analysed graph at two input sizes."""
        return FreeSizes.of(self.axes.analysis.dag, self.inputs, self.registry)

    def substitute(self, vertex: InnerVertex, module: nn.Module, operands: Sequence[Vertex]) -> InnerVertex:
        """Replace a vertex by one with another module and other operands, which takes over its name, and return it."""
        name = vertex.name
        fresh = self.dag.add_vertex(self.dag.unique_name(f"{name}_without_operands"), module, operands)
        module.train(vertex.module.training)
        self.dag.replace_uses(vertex, fresh)
        self.dag.remove_unused(vertex)
        self.dag.rename(fresh, name)
        self.made.add(name)
        return fresh

    def skip(self, vertex: InnerVertex, operand: int) -> None:
        """Connect the readers of a vertex to its operand number ``operand`` instead."""
        self.dag.replace_uses(vertex, vertex.predecessors[operand])
        self.gone.add(vertex.name)

    def left_of(self, vertex: InnerVertex, name: str) -> Tensor | None:
        """Return the kept part of the parameter or buffer ``name`` of the module, None if that is None."""
        tensor: Tensor | None = getattr(vertex.module, name)
        if tensor is None:
            return None
        return self.kept.take_learned(tensor, self.axes.analysis.relations[vertex.name].parameters[name])

    def dtype_of(self, value: str) -> torch.dtype:
        """Return the dtype of the first result of a vertex of the analysed graph."""
        return self.sizes.dtypes[value][0]

    def live_before(self, name: str) -> list[str]:
        """Return the vertices before ``name`` that are not deleted and give one tensor, in order."""
        before = self.order[: self.order.index(name)]
        return [other for other in before if other not in self.gone and len(self.sizes.here.get(other, ())) == 1]

    def shape_of(self, value: str, reader: str, first: int) -> tuple[list[int | Size], list[Vertex]]:
        """Return the shape that is left of a value; sizes that depend on the input are read off vertices that remain.

        Args:
            value: Name of a vertex of the analysed graph.
            reader: Name of the vertex that will state the shape; only vertices before it are read.
            first: Operand number of the first vertex read off; a `Size` names its operands by number.

        Returns:
            The shape, and the vertices that it reads, to be used as operands ``first``, ``first + 1``, ...
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
        """Express an input-dependent dimension of the analysed graph by sizes of a vertex that remains.

        The vertex is appended to ``likes`` unless it is there already.

        Returns:
            The size, whose operand number is the index into ``likes``; and the fraction of it that is left if it is
            read off the vertex after removal.
        """
        source, size = self.sizes.stated(value, dim, self.live_before(reader))
        like = self.dag.get_vertex_by_name(source)
        if like not in likes:
            likes.append(like)
        axes = self.axes.outputs(source)[0]
        left = math.prod((self.kept.ratio(axes[place]) for _, place in size.dims), start=Fraction(1))
        return size.shifted(likes.index(like)), left

    def fill(self, vertex: InnerVertex, value: float) -> None:
        """Replace a vertex by a tensor of its kept shape, filled with ``value``."""
        self.substitute(vertex, *self.constant(vertex.name, vertex.name, value))

    def constant(
        self, value: str, reader: str, fill: float, last: int | None = None
    ) -> tuple[creation.Full, list[Vertex]]:
        """Return a `Full` module and its operands that make a tensor of the kept shape and dtype of ``value``.

        Args:
            value: Name of a vertex of the analysed graph.
            reader: Name of the vertex that will read the tensor.
            fill: The value of all elements.
            last: Size of the last dimension, if it differs from the kept one.
        """
        shape, likes = self.shape_of(value, reader, 0)
        if last is not None:
            shape[-1] = last
        likes = likes or [self.dag.input_vertices[0]]
        dtype = self.dtype_of(value)
        follows = self.dtype_of(likes[0].name) == dtype
        return creation.Full(tuple(shape), fill, None if follows else dtype), likes

    def spread(self, vertex: InnerVertex, source: Vertex, dim: int) -> None:
        """Replace a vertex by a vector of dimension ``dim``, broadcast to the kept shape of the vertex."""
        axes = self.axes.outputs(vertex.name)[0]
        behind = len(axes) - 1 - dim % len(axes)
        if behind:
            module = layout.Reshape((-1, *[1] * behind))
            source = self.dag.add_vertex(self.dag.unique_name(f"{source.name}_reshape"), module, [source])
        shape, likes = self.shape_of(vertex.name, vertex.name, 1)
        self.substitute(vertex, layout.Expand(tuple(shape)), [source, *likes])
