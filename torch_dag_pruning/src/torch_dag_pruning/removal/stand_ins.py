"""What stands for an op of whose operands nothing is left: one handler a class, in a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from torch import nn

from torch_dag_core.graph.values import Size
from torch_dag_core.graph.vertex import InnerVertex, Vertex
from torch_dag_core.ops import arithmetic, contraction, creation, layout, reduction, sampling, stochastic
from torch_dag_core.ops.tensors import FreeParameter

if TYPE_CHECKING:
    from torch_dag_pruning.removal.emptiness import Emptiness

Handler = Callable[["Emptiness", InnerVertex, set[int]], InnerVertex | None]


def _bias_along(dim: int) -> Handler:
    """Return the handler of a module whose value is its bias along ``dim``."""

    def handler(emptiness: Emptiness, vertex: InnerVertex, _: set[int]) -> None:
        module: Any = vertex.module
        if module.bias is None:
            emptiness.fill(vertex, 0.0)
            return
        axes = emptiness.axes.analysis.relations[vertex.name].parameters["bias"]
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
    module: Any = vertex.module
    left = [p for index, p in enumerate(vertex.predecessors) if index not in empty]
    return emptiness.substitute(vertex, layout.Cat(module.dim), left)


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


HANDLERS: Final[dict[type[nn.Module], Handler]] = {
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
