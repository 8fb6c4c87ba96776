"""Axis rules of functions that read or write slots by position (O12)."""

from __future__ import annotations

from collections.abc import Iterable

from torch_dag_core.graph.values import Slot
from torch_dag_pruning.axes import Fixed, product
from torch_dag_pruning.axes.relation import Axes, Context, Relation
from torch_dag_pruning.rules.broadcasting import broadcast
from torch_dag_pruning.rules.calls.declaration import argument, function_rule, operand_axes
from torch_dag_pruning.rules.touching import frozen

_PLACED = "slots are picked by position"


def _dim(ctx: Context, place: int, rank: int) -> int:
    return int(argument(ctx, place, "dim", 0)) % rank


@function_rule("torch.scatter", "torch.scatter_add", "torch.scatter_reduce")
def scatter(ctx: Context) -> Relation:
    """Freeze the dimension that is written to by position; along the others, all operands are tied (O12).

    Where the index covers only a part of another dimension, that is frozen as well.
    """
    x: Axes = list(ctx.inputs[0])
    dim = _dim(ctx, 1, len(x))
    for axes in ctx.inputs:
        frozen(ctx, axes, [dim], _PLACED)
    for other in ctx.inputs[1:]:
        _tie(ctx, x, other, (place for place in range(len(x)) if place != dim))
    return Relation([x])


@function_rule("torch.index_add", "torch.index_copy")
def index_add(ctx: Context) -> Relation:
    """Freeze the dimension that is written to by position, and tie the others to those of the source (O12)."""
    x, _, source = ctx.inputs
    dim = _dim(ctx, 1, len(x))
    frozen(ctx, x, [dim], _PLACED)
    frozen(ctx, source, [dim], _PLACED)
    _tie(ctx, x, source, (place for place in range(len(x)) if place != dim))
    return Relation([list(x)])


def _tie(ctx: Context, axes: Axes, others: Axes, dims: Iterable[int]) -> None:
    for dim in dims:
        ctx.unify(axes[dim], others[dim], _PLACED)


@function_rule("torch.index_fill")
def index_fill(ctx: Context) -> Relation:
    """Freeze the dimension that is written to by position (O12)."""
    x: Axes = list(ctx.inputs[0])
    frozen(ctx, x, [_dim(ctx, 1, len(x))], _PLACED)
    return Relation([x])


@function_rule("torch.take_along_dim")
def take_along_dim(ctx: Context) -> Relation:
    """Freeze the dimension that is indexed; the others broadcast against those of the index (O12)."""
    x, where = ctx.inputs
    dim = argument(ctx, 2, "dim")
    if dim is None:
        ctx.freeze([*x, *where], _PLACED)
        return Relation([[product(*where)]])
    place = dim % len(x)
    frozen(ctx, x, [place], _PLACED)
    rest = broadcast(ctx, [[*axes[:place], Fixed(1), *axes[place + 1 :]] for axes in (x, where)])
    return Relation([[*rest[:place], where[place], *rest[place + 1 :]]])


@function_rule("functional.one_hot")
def one_hot(ctx: Context) -> Relation:
    """Append a fixed dimension to the axes of the index."""
    return Relation([[*ctx.inputs[0], Fixed(ctx.outputs[0][-1], ctx.cause("classes are numbered"))]])


@function_rule("torch.diagonal")
def diagonal(ctx: Context) -> Relation:
    """Freeze the two dimensions whose positions are compared; the diagonal becomes the last (O3)."""
    x = ctx.inputs[0]
    dims = argument(ctx, 2, "dim1", 0), argument(ctx, 3, "dim2", 1)
    taken = frozen(ctx, x, dims, _PLACED)
    rest = [axis for dim, axis in enumerate(x) if dim not in taken]
    return Relation([[*rest, Fixed(ctx.outputs[0][-1], ctx.cause(_PLACED))]])


@function_rule("functional.embedding_bag")
def embedding_bag(ctx: Context) -> Relation:
    """Freeze the rows of the table, which are looked up; its width is a learned axis (O12)."""
    rows, width = operand_axes(ctx, 1, "weight") or []
    ctx.freeze([rows], "rows are looked up")
    if argument(ctx, 3, "max_norm") is not None:
        ctx.freeze([width], "rows are renormalised")
    bags = Fixed(ctx.outputs[0][0], ctx.cause("bags of rows"))
    for index, axes in enumerate(ctx.inputs):
        if Slot(index) != argument(ctx, 1, "weight"):
            ctx.freeze(axes, "rows are looked up")
    return Relation([[bags, width]], learned=(width,))
