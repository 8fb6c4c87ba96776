"""Axis rules of functions that read images at positions, or pool them and undo it (O3)."""

from __future__ import annotations

from torch_dag_pruning.axes import Fixed, product
from torch_dag_pruning.axes.relation import Axes, Context, Relation, Sink
from torch_dag_pruning.rules.calls.declaration import argument, function_rule, operand_axes
from torch_dag_pruning.rules.touching import ALONG


def _space(ctx: Context, first: int) -> Axes:
    return [Fixed(n, ctx.cause(ALONG)) for n in ctx.outputs[0][first:]]


@function_rule("functional.max_unpool1d", "functional.max_unpool2d", "functional.max_unpool3d")
def max_unpool(ctx: Context) -> Relation:
    """Tie samples and channels of values and positions; space is frozen (O3)."""
    x, positions = ctx.inputs[:2]
    first = len(x) - int(ctx.module.function[-2])
    for axis, other in zip(x[:first], positions[:first], strict=True):
        ctx.unify(axis, other)
    ctx.freeze([*x[first:], *positions[first:]], ALONG)
    return Relation([[*x[:first], *_space(ctx, first)]])


@function_rule("torchvision.roi_align", "torchvision.roi_pool")
def pooled_regions(ctx: Context) -> Relation:
    """Pass the channels; regions and space are frozen (O3)."""
    x, regions = ctx.inputs[:2]
    ctx.freeze([x[0], *x[2:], *regions], ALONG)
    results = [[Fixed(s[0], ctx.cause(ALONG)), x[1], *(Fixed(n, ctx.cause(ALONG)) for n in s[2:])] for s in ctx.outputs]
    return Relation(results)


@function_rule("torchvision.deform_conv2d")
def deformable_convolution(ctx: Context) -> Relation:
    """Relate the channels as in a convolution (O2); offsets, masks and space are frozen.

    With several groups of offsets, the groups are frozen and the channels of each are tied (arXiv:1811.11168).
    """
    x = ctx.inputs[0]
    weight, offset, bias = (operand_axes(ctx, place, name) or [] for place, name in _DEFORMABLE)
    out, inner = weight[:2]
    groups, offset_groups = argument(ctx, 11, "groups", 1), argument(ctx, 12, "offset_groups", 1)
    group, ours = ctx.reshape([x[1]], [groups, inner.n])
    ctx.unify(ours, inner)
    made, _ = ctx.reshape([out], [groups, -1])
    sets, _ = ctx.reshape([x[1]], [offset_groups, -1])
    ctx.freeze([group, made, sets], "groups of a deformable convolution")
    for axis in bias:
        ctx.unify(axis, out)
    ctx.freeze([*x[2:], *weight[2:], *offset[1:], *(operand_axes(ctx, 3, "mask") or [])[1:]], ALONG)
    sink = Sink(0, (1,), (product(Fixed(groups), inner),))
    return Relation([[x[0], out, *_space(ctx, 2)]], (sink,), learned=(out,))


_DEFORMABLE = ((1, "weight"), (2, "offset"), (4, "bias"))
