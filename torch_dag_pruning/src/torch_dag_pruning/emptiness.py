"""Orbits that vanish whole: what is deleted, and what stands for an op that contracts over nothing.

A vertex with an empty axis is deleted. One that reads a deleted vertex and still has a value contracts over the empty
axis, so its value is its bias, or zeros; a concatenation just drops the operand. Whatever is made here is made of
ops of the core's vocabulary, and no module is ever built with a size of 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from torch import Tensor, nn

from torch_dag_core.dag import DagModule
from torch_dag_core.op import Op
from torch_dag_core.ops import arithmetic, contraction, creation, layout, reduction, sampling, stochastic
from torch_dag_core.ops.tensors import FreeParameter
from torch_dag_core.registry import Registry
from torch_dag_core.values import Size
from torch_dag_core.vertex import InnerVertex, Vertex
from torch_dag_pruning.axes import Axis
from torch_dag_pruning.errors import RemovalError
from torch_dag_pruning.free_sizes import FreeSizes
from torch_dag_pruning.places import Places
from torch_dag_pruning.rebuilding import rescaled
from torch_dag_pruning.slicing import Kept


@dataclass
class Emptiness:
    """Decides which vertices vanish, and replaces those that read them.

    Attributes:
        dag: The graph that is cut down.
        places: The axes of its values, as they were.
        kept: What stays of any axis.
        inputs: Tensors of the sizes that the axes have.
        registry: The vocabulary.
        gone: Names of the vertices without an element left.
        made: Names of the vertices that were put in place of others.
    """

    dag: DagModule
    places: Places
    kept: Kept
    inputs: Sequence[Tensor]
    registry: Registry
    gone: set[str] = field(default_factory=set)
    made: set[str] = field(default_factory=set)

    def find(self) -> None:
        """Fill ``gone``."""
        self.order = [vertex.name for vertex in self.dag.vertices]
        for vertex in self.dag.inner_vertices:
            values = self.places.outputs(vertex.name)
            if values and all(map(self.is_empty, values)):
                self.gone.add(vertex.name)

    def is_empty(self, axes: Iterable[Axis]) -> bool:
        """Tell whether a tensor with these axes has no element left."""
        return any(self.kept.size(axis) == 0 for axis in axes)

    def empty_operands(self, vertex: InnerVertex) -> set[int]:
        """Return which operands of a vertex have no element left."""
        operands = range(len(vertex.predecessors))
        return {index for index in operands if self.is_empty(self.places.operand(vertex, index))}

    def resolve(self, vertex: InnerVertex) -> InnerVertex | None:
        """Make a vertex that stays independent of empty values.

        Returns:
            The vertex if it still has to be rebuilt, None if something else stands for it now.

        Raises:
            RemovalError: nobody knows what the op is without its operands.
        """
        empty = self.empty_operands(vertex)
        if not empty:
            return vertex
        handler = _HANDLERS.get(type(vertex.module))
        if handler is None:
            message = (
                f"{vertex.name!r} ({type(vertex.module).__name__}) reads a value of which nothing is left; "
                "keep a slot of the orbit that it contracts over"
            )
            raise RemovalError(vertex.name, message)
        return handler(self, vertex, empty)

    # Making replacements ---------------------------------------------------------------------------------------

    @cached_property
    def sizes(self) -> FreeSizes:
        """Sizes at two inputs, of the graph as it was."""
        return FreeSizes.of(self.places.analysis.dag, self.inputs, self.registry)

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

    def live_before(self, name: str) -> list[str]:
        """Return the vertices that are left and come before one, so that it may read them."""
        before = self.order[: self.order.index(name)]
        return [other for other in before if other not in self.gone and len(self.sizes.here.get(other, ())) == 1]

    def shape_of(self, value: str, reader: str, first: int) -> tuple[list[int | Size], list[Vertex]]:
        """Return what is left of a value's shape, over live vertices that ``reader`` takes as operands from ``first``."""
        likes: list[Vertex] = []
        shape: list[int | Size] = []
        for dim, axis in enumerate(self.places.outputs(value)[0]):
            if not self.sizes.is_free(value, dim):
                shape.append(self.kept.size(axis))
                continue
            size, there = self.size_of(value, dim, reader, likes)
            shape.append(rescaled(size, self.kept.ratio(axis) / self.kept.ratio(there)).shifted(first))
        return shape, likes

    def size_of(self, value: str, dim: int, reader: str, likes: list[Vertex]) -> tuple[Size, Axis]:
        """State a free dimension, as it was, over a live vertex, which is added to ``likes``; also give its axis."""
        source, size = self.sizes.stated(value, dim, self.live_before(reader))
        like = self.dag.get_vertex_by_name(source)
        if like not in likes:
            likes.append(like)
        return size.shifted(likes.index(like)), self.places.outputs(source)[0][size.dims[0][1]]

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
        dtype = self.sizes.dtypes[value][0]
        follows = self.sizes.dtypes[likes[0].name][0] == dtype
        return creation.Full(tuple(shape), fill, None if follows else dtype), likes

    def spread(self, vertex: InnerVertex, source: Vertex, dim: int) -> None:
        """Make a vertex the broadcast of a vector along one of its dimensions."""
        axes = self.places.outputs(vertex.name)[0]
        behind = len(axes) - 1 - dim % len(axes)
        if behind:
            module = layout.Reshape((-1, *[1] * behind))
            source = self.dag.add_vertex(self.dag.unique_name(f"{source.name}_reshape"), module, [source])
        shape, likes = self.shape_of(vertex.name, vertex.name, 1)
        self.substitute(vertex, layout.Expand(tuple(shape)), [source, *likes])


Handler = Callable[[Emptiness, InnerVertex, set[int]], InnerVertex | None]


def _bias_along(dim: int) -> Handler:
    """Return the handler of a module whose value is its bias along ``dim``."""

    def handler(emptiness: Emptiness, vertex: InnerVertex, _: set[int]) -> None:
        module: Any = vertex.module
        if module.bias is None:
            emptiness.fill(vertex, 0.0)
            return
        axes = emptiness.places.analysis.relations[vertex.name].parameters["bias"]
        bias = emptiness.kept.take_learned(module.bias, axes)
        holder = FreeParameter(tuple(bias.shape), bias.dtype, value=bias)
        source = emptiness.dag.add_vertex(emptiness.dag.unique_name(f"{vertex.name}_bias"), holder)
        emptiness.spread(vertex, source, dim)

    return handler


def _bias_operand_along(dim: int) -> Handler:
    """Return the handler of a function whose value is its third operand along ``dim``."""

    def handler(emptiness: Emptiness, vertex: InnerVertex, _: set[int]) -> None:
        if len(vertex.predecessors) < 3:
            emptiness.fill(vertex, 0.0)
        else:
            emptiness.spread(vertex, vertex.predecessors[2], dim)

    return handler


def _zeros(emptiness: Emptiness, vertex: InnerVertex, _: set[int]) -> None:
    emptiness.fill(vertex, 0.0)


def _pad(emptiness: Emptiness, vertex: InnerVertex, empty: set[int]) -> InnerVertex | None:
    module: Any = vertex.module
    if 0 not in empty:
        return _restate(emptiness, vertex, empty)
    emptiness.fill(vertex, module.value or 0.0)
    return None


def _join(emptiness: Emptiness, vertex: InnerVertex, empty: set[int]) -> InnerVertex:
    left = [p for index, p in enumerate(vertex.predecessors) if index not in empty]
    return emptiness.substitute(vertex, layout.Cat(vertex.module.dim), left)


def _keep_first(emptiness: Emptiness, vertex: InnerVertex, _: set[int]) -> None:
    emptiness.dag.replace_uses(vertex, vertex.predecessors[0])
    emptiness.gone.add(vertex.name)


def _uniform_attention(emptiness: Emptiness, vertex: InnerVertex, empty: set[int]) -> InnerVertex:
    """Compare zeros with zeros where nothing is left of queries and keys: all weights are equal, masks apart."""
    for index in sorted(empty):
        pred = vertex.predecessors[index]
        module, likes = emptiness.constant(pred.name, vertex.name, 0.0, last=1)
        name = emptiness.dag.unique_name(f"{vertex.name}_{('query', 'key')[index]}")
        emptiness.dag.set_predecessor(vertex, index, emptiness.dag.add_vertex(name, module, likes))
    return vertex


def _cast(emptiness: Emptiness, vertex: InnerVertex, _: set[int]) -> None:
    dtype = emptiness.sizes.dtypes[vertex.name][0]
    emptiness.substitute(vertex, arithmetic.Cast(dtype), vertex.predecessors[:1])


def _restate(emptiness: Emptiness, vertex: InnerVertex, empty: set[int]) -> InnerVertex | None:
    """State sizes that followed empty operands over live vertices instead."""
    op: Any = vertex.module
    operands: list[Vertex] = list(vertex.predecessors)
    stand_in = emptiness.dag.input_vertices[0]
    fresh: list[Vertex] = []

    def over_live(size: Size) -> Size:
        factor, dims = Size(()), []
        for operand, dim in size.dims:
            if operand not in empty:
                dims.append((operand, dim))
                continue
            name = vertex.predecessors[operand].name
            found = emptiness.size_of(name, dim, vertex.name, fresh)[0].shifted(len(operands))
            factor = Size((), factor.num * found.num, factor.den * found.den)
            dims += found.dims
        return Size(tuple(dims), size.num * factor.num, size.den * factor.den, size.add)

    module = type(op)(**{name: _mapped(value, over_live) for name, value in op.config().items()})
    if 0 in empty and getattr(op, "dtype", ...) is None:
        module.dtype = emptiness.sizes.dtypes[vertex.name][0]
    kept = [stand_in if index in empty else operand for index, operand in enumerate(operands)]
    return emptiness.substitute(vertex, module, [*kept, *fresh])


def _mapped(value: Any, function: Callable[[Size], Size]) -> Any:
    if isinstance(value, Size):
        return function(value)
    if isinstance(value, slice):
        return slice(*(_mapped(part, function) for part in (value.start, value.stop, value.step)))
    return tuple(_mapped(item, function) for item in value) if isinstance(value, tuple) else value


_HANDLERS: Final[dict[type[nn.Module], Handler]] = {
    nn.Linear: _bias_along(-1),
    **dict.fromkeys(
        (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _bias_along(1)
    ),
    contraction.LinearFunction: _bias_operand_along(-1),
    contraction.Convolution: _bias_operand_along(1),
    contraction.TransposedConvolution: _bias_operand_along(1),
    contraction.Matmul: _zeros,
    contraction.Einsum: _zeros,
    contraction.ScaledDotProductAttention: _uniform_attention,
    reduction.Sum: _zeros,
    reduction.Mean: _zeros,
    reduction.Norm: _zeros,
    layout.Cat: _join,
    layout.SetIndex: _keep_first,
    layout.Pad: _pad,
    arithmetic.CastLike: _cast,
    **dict.fromkeys(
        (layout.Reshape, layout.Expand, layout.Repeat, layout.RepeatInterleave, layout.Split, layout.Index,
         creation.Full, creation.Arange, creation.Linspace, stochastic.Random, sampling.Interpolate),
        _restate,
    ),
}  # fmt: skip
