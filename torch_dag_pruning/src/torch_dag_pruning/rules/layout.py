"""Axis rules of ops that move, join, cut or repeat elements (O9 to O11)."""

from __future__ import annotations

import itertools
from typing import Any

from torch_dag_core.graph.values import Size
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_core.ops.layout import Cat
from torch_dag_pruning.axes import Axis, Fixed, concat, product
from torch_dag_pruning.axes.relation import Axes, Context, Relation, axis_rule
from torch_dag_pruning.axes.stand_in import Emptied
from torch_dag_pruning.rules.broadcasting import broadcast
from torch_dag_pruning.rules.stand_ins import restated
from torch_dag_pruning.rules.touching import ALONG, frozen, moved, touches


@axis_rule("core.get_item")
def get_item(ctx: Context) -> Relation:
    """Pass the axes of one item of a tuple."""
    return Relation(tensors_in(ctx.inputs[0][ctx.module.index]))


def tensors_in(picked: Any) -> list[Axes]:
    """Return the axes of each tensor in a value: one tensor, or nested tuples of them."""
    if isinstance(picked, list):
        return [picked]
    return list(itertools.chain.from_iterable(tensors_in(item) for item in picked))


@axis_rule("core.pack")
def pack(ctx: Context) -> Relation:
    """Pass the axes of all operands, as those of a tuple."""
    return Relation(tensors_in(tuple(ctx.inputs)))


@axis_rule("core.reshape", stand_in=restated)
def reshape(ctx: Context) -> Relation:
    """Regroup the axes into the shape of the result (A4); the target becomes one size per axis."""
    axes = ctx.reshape(ctx.inputs[0], ctx.outputs[0])
    return Relation([axes], rewrite={"shape": tuple(axes)})


@axis_rule("core.flatten")
def flatten(ctx: Context) -> Relation:
    """Regroup the axes into the shape of the result (A4); the configuration holds dimensions, which do not change."""
    return Relation([ctx.reshape(ctx.inputs[0], ctx.outputs[0])])


@axis_rule("core.unflatten")
def unflatten(ctx: Context) -> Relation:
    """Regroup one axis into several (A4)."""
    axes = ctx.reshape(ctx.inputs[0], ctx.outputs[0])
    first = ctx.module.dim % len(ctx.inputs[0])
    return Relation([axes], rewrite={"unflattened_size": tuple(axes[first : first + len(ctx.module.unflattened_size)])})


@axis_rule("core.permute")
def permute(ctx: Context) -> Relation:
    """Reorder the axes (O9)."""
    return Relation([[ctx.inputs[0][dim] for dim in ctx.module.dims]])


@axis_rule("core.expand", stand_in=restated)
def expand(ctx: Context) -> Relation:
    """Make a new atom where size 1 is expanded to a number; other sizes follow `made` (O11)."""
    sizes = ctx.module.sizes
    given = [Fixed(1)] * (len(sizes) - len(ctx.inputs[0])) + list(ctx.inputs[0])
    axes = [_expanded(ctx, dim, size, axis) for dim, (size, axis) in enumerate(zip(sizes, given, strict=True))]
    return Relation([axes], rewrite={"sizes": tuple(axes)})


def _expanded(ctx: Context, dim: int, size: Any, axis: Axis) -> Axis:
    n = ctx.outputs[0][dim]
    return axis if axis.n == n else made(ctx, n, size, f"size {dim}")


def made(ctx: Context, n: int, size: Any, role: str) -> Axis:
    """Return the axis of ``n`` new slots: an atom if ``size`` is a number.

    A `Size` equal to one dimension of an operand gives the axis of that dimension. Any other `Size` gives a fixed axis,
    and freezes the dimensions from which it is computed (O11).
    """
    if not isinstance(size, Size):
        return ctx.atom(n, role)
    followed: Axes = [ctx.inputs[operand][dim] for operand, dim in size.dims]
    if len(followed) == 1 and followed[0].n == n and (size.num, size.den, size.add) == (1, 1, 0):
        return followed[0]
    ctx.freeze(followed, "a size is computed from this axis")
    return Fixed(n, ctx.cause("its size follows the input's"))


@axis_rule("core.repeat", stand_in=restated)
def repeat(ctx: Context) -> Relation:
    """Give each repeated axis the factors (copies, axis) (O11)."""
    given = [Fixed(1)] * (len(ctx.outputs[0]) - len(ctx.inputs[0])) + list(ctx.inputs[0])
    return Relation([[product(Fixed(n // axis.n), axis) for n, axis in zip(ctx.outputs[0], given, strict=True)]])


@axis_rule("core.repeat_interleave", stand_in=restated)
def repeat_interleave(ctx: Context) -> Relation:
    """Give the repeated axis the factors (axis, copies) (O11)."""
    axes, dim = list(ctx.inputs[0]), ctx.module.dim
    if dim is None:
        axes, dim = [product(*axes)], 0
    n = ctx.outputs[0][dim]
    axes[dim] = product(axes[dim], Fixed(n // axes[dim].n))
    return Relation([axes])


def joined(graph: Emptied, vertex: InnerVertex, empty: set[int]) -> InnerVertex:
    """Concatenate the operands that are not empty."""
    module: Any = vertex.module
    left = [operand for index, operand in enumerate(vertex.predecessors) if index not in empty]
    return graph.substitute(vertex, Cat(module.dim), left)


@axis_rule("core.cat", stand_in=joined)
def cat(ctx: Context) -> Relation:
    """Concatenate one axis and unify the others (O10); torch skips operands of shape (0,), and so does the rule."""
    parts = [axes for axes, shape in zip(ctx.inputs, ctx.shapes, strict=True) if tuple(shape) != (0,)]
    dim = ctx.module.dim % len(parts[0])
    joined = concat(*(axes[dim] for axes in parts))
    rest = broadcast(ctx, [[*axes[:dim], Fixed(1), *axes[dim + 1 :]] for axes in parts])
    return Relation([[*rest[:dim], joined, *rest[dim + 1 :]]])


@axis_rule("core.stack")
def stack(ctx: Context) -> Relation:
    """Unify all axes; the new dimension is fixed (O10)."""
    axes = broadcast(ctx, ctx.inputs)
    dim = ctx.module.dim % (len(axes) + 1)
    return Relation([[*axes[:dim], Fixed(len(ctx.inputs), ctx.cause("stacked tensors")), *axes[dim:]]])


@axis_rule("core.split", stand_in=restated)
def split(ctx: Context) -> Relation:
    """Cut one axis at the split offsets; each piece can be pruned on its own (A3, O10)."""
    axes, dim = ctx.inputs[0], ctx.module.dim % len(ctx.inputs[0])
    if any(isinstance(size, Size) for size in ctx.module.sizes):
        return _pieces(ctx, dim)
    ends = list(itertools.accumulate(ctx.module.sizes))[:-1]
    pieces = ctx.solver.cut(axes[dim], ends, ctx.cause("a single slot is split off"))
    return Relation([[*axes[:dim], piece, *axes[dim + 1 :]] for piece in pieces], rewrite={"sizes": tuple(pieces)})


def _pieces(ctx: Context, dim: int) -> Relation:
    touched = frozenset(frozen(ctx, ctx.inputs[0], [dim]))
    return Relation([moved(ctx, ctx.inputs[0], shape, touched) for shape in ctx.outputs])


@axis_rule("core.unbind")
def unbind(ctx: Context) -> Relation:
    """Freeze the axis that is taken apart (O10)."""
    (dim,) = frozen(ctx, ctx.inputs[0], [ctx.module.dim], "taken apart slot by slot")
    rest = [axis for place, axis in enumerate(ctx.inputs[0]) if place != dim]
    return Relation([list(rest) for _ in ctx.outputs])


@axis_rule("core.roll")
def roll(ctx: Context) -> Relation:
    """Swap the two pieces of each rolled dimension (O10); without ``dims`` freeze all, as torch flattens first."""
    shifts, dims = (value if isinstance(value, tuple) else (value,) for value in (ctx.module.shifts, ctx.module.dims))
    if dims == (None,):
        return touches(ctx, range(len(ctx.inputs[0])))
    axes, moved_pieces = list(ctx.inputs[0]), []
    for shift, dim in zip(shifts, dims, strict=True):
        axes[dim], piece = _rolled(ctx, axes[dim], shift)
        moved_pieces.append(piece)
    is_single = not isinstance(ctx.module.shifts, tuple)
    return Relation([axes], rewrite={"shifts": moved_pieces[0] if is_single else tuple(moved_pieces)})


def _rolled(ctx: Context, axis: Axis, shift: int | Size) -> tuple[Axis, Any]:
    """Return an axis behind a roll, and its shift: the piece that moves to the front, or all of it."""
    if isinstance(shift, Size) or axis.n == 0:  # one that follows the sizes of the input
        ctx.freeze([axis], "slots are moved along this axis")
        return axis, shift
    if shift % axis.n == 0:
        return axis, axis
    front, back = ctx.solver.cut(axis, [axis.n - shift % axis.n], ctx.cause("a single slot is moved"))
    if shift == -1:
        ctx.freeze([front], "a single slot is moved")
    return concat(back, front), back


@axis_rule("core.flip")
def flip(ctx: Context) -> Relation:
    """Freeze the flipped dimensions (O3)."""
    return touches(ctx, ctx.module.dims)


@axis_rule("core.triangle")
def triangle(ctx: Context) -> Relation:
    """Freeze the last two dimensions, whose positions are compared."""
    return touches(ctx, (-2, -1))


@axis_rule("core.unfold_dim")
def unfold_dim(ctx: Context) -> Relation:
    """Freeze the dimension along which windows slide; the last dimension of the result holds their elements."""
    (dim,) = frozen(ctx, ctx.inputs[0], [ctx.module.dimension])
    window = Fixed(ctx.outputs[0][-1], ctx.cause(ALONG))
    return Relation([[*moved(ctx, ctx.inputs[0], ctx.outputs[0][:-1], frozenset([dim])), window]])


# Padding ---------------------------------------------------------------------------------------------------------


def padding_alone(graph: Emptied, vertex: InnerVertex, empty: set[int]) -> InnerVertex | None:
    """Fill the result with the padding value if the padded operand is empty; otherwise restate the sizes."""
    module: Any = vertex.module
    if 0 not in empty:
        return restated(graph, vertex, empty)
    graph.fill(vertex, module.value or 0.0)
    return None


@axis_rule("core.pad", stand_in=padding_alone)
def pad(ctx: Context) -> Relation:
    """Add an atom at both ends of an axis padded with a constant (O10); other modes freeze the axis."""
    axes, amounts = list(ctx.inputs[0]), ctx.module.pad
    rewritten = list(amounts)
    for place in range(len(amounts) // 2):
        dim = len(axes) - 1 - place
        before, after = amounts[2 * place : 2 * place + 2]
        if before == after == 0:
            continue
        if ctx.module.mode == "constant" and _grows(before) and _grows(after):
            ends = ctx.atom(before, f"pad before {dim}"), ctx.atom(after, f"pad after {dim}")
            rewritten[2 * place : 2 * place + 2] = ends
            axes[dim] = concat(ends[0], axes[dim], ends[1])
        else:
            ctx.freeze([axes[dim]], ALONG)
            axes[dim] = Fixed(ctx.outputs[0][dim], ctx.cause(ALONG))
    return Relation([axes], rewrite={"pad": tuple(rewritten)})


def _grows(amount: Any) -> bool:
    return isinstance(amount, int) and amount >= 0


@axis_rule(
    "core.zero_pad1d", "core.zero_pad2d", "core.zero_pad3d", "core.constant_pad1d", "core.constant_pad2d",
    "core.constant_pad3d", "core.reflection_pad1d", "core.reflection_pad2d", "core.reflection_pad3d",
    "core.replication_pad1d", "core.replication_pad2d", "core.replication_pad3d", "core.circular_pad1d",
    "core.circular_pad2d", "core.circular_pad3d",
)  # fmt: skip
def pad_module(ctx: Context) -> Relation:
    """Freeze the padded spatial dimensions."""
    padding = ctx.module.padding
    return touches(ctx, [-1 - place // 2 for place, amount in enumerate(padding) if amount != 0])


@axis_rule("core.same_pad")
def same_pad(ctx: Context) -> Relation:
    """Freeze the last two dimensions, which are padded."""
    return touches(ctx, (-2, -1))


# Channels and space ----------------------------------------------------------------------------------------------


@axis_rule("core.pixel_shuffle")
def pixel_shuffle(ctx: Context) -> Relation:
    """Split the channels into (c, r, r), freeze both r, and append them to height and width (O9)."""
    *batch, channels, height, width = ctx.inputs[0]
    factor = ctx.module.upscale_factor
    kept, rows, columns = ctx.reshape([channels], [-1, factor, factor])
    ctx.freeze([rows, columns], "channels that become space")
    return Relation([[*batch, kept, product(height, Fixed(factor)), product(width, Fixed(factor))]])


@axis_rule("core.pixel_unshuffle")
def pixel_unshuffle(ctx: Context) -> Relation:
    """Split height and width into blocks, freeze the positions in a block, and append those to the channels (O9)."""
    *batch, channels, height, width = ctx.inputs[0]
    factor = ctx.module.downscale_factor
    (upper, rows), (left, columns) = (ctx.reshape([axis], [-1, factor]) for axis in (height, width))
    ctx.freeze([rows, columns], "space that becomes channels")
    return Relation([[*batch, product(channels, Fixed(factor**2)), upper, left]])


@axis_rule("core.channel_shuffle")
def channel_shuffle(ctx: Context) -> Relation:
    """Swap the factors (groups, channels of each) of dimension 1 (O9)."""
    axes = list(ctx.inputs[0])
    group, each = ctx.reshape([axes[1]], [ctx.module.groups, -1])
    axes[1] = product(each, group)
    return Relation([axes], rewrite={"groups": group})


@axis_rule("core.unfold")
def unfold(ctx: Context) -> Relation:
    """Give the channel axis the factors (channels, kernel positions), and freeze the spatial axes."""
    axes, (*_, wide, places) = ctx.inputs[0], ctx.outputs[0]
    ctx.freeze(axes[-2:], ALONG)
    channels = product(axes[-3], Fixed(wide // axes[-3].n))
    return Relation([[*axes[:-3], channels, Fixed(places, ctx.cause(ALONG))]])


@axis_rule("core.fold")
def fold(ctx: Context) -> Relation:
    """Split the channel axis into (channels, kernel positions); the positions and the windows are frozen."""
    *batch, wide, places = ctx.inputs[0]
    channels, window = ctx.reshape([wide], [ctx.outputs[0][-3], -1])
    ctx.freeze([window, places], ALONG)
    return Relation([[*batch, channels, *(Fixed(n, ctx.cause(ALONG)) for n in ctx.outputs[0][-2:])]])
