"""Ops that look at or resample space."""

from __future__ import annotations

from torch_dag_pruning.axes import Fixed
from torch_dag_pruning.axes.relation import AxisRule, Context, Relation, axis_rule
from torch_dag_pruning.rules.broadcasting import broadcast
from torch_dag_pruning.rules.touching import ALONG, per_dim, stays_put, touches


def _rank(ctx: Context) -> int:
    """Return the number of spatial dimensions, which the name of the op ends on."""
    return int(ctx.op.removesuffix("d")[-1])


_POOLS = (*(f"{kind}_pool{rank}d" for kind in ("max", "avg") for rank in (1, 2, 3)), "lp_pool1d", "lp_pool2d")


@axis_rule(*(f"core.{name}" for name in _POOLS))
def pool(ctx: Context) -> Relation:
    """Freeze the spatial dimensions that the window moves along."""
    rank, module = _rank(ctx), ctx.module
    kernel = per_dim(module.kernel_size, rank)
    stride = per_dim(module.kernel_size if module.stride is None else module.stride, rank)
    padding = per_dim(getattr(module, "padding", 0), rank)
    settings = zip(range(-rank, 0), kernel, stride, padding, strict=True)
    return touches(ctx, [dim for dim, *setting in settings if not stays_put(*setting)])


@axis_rule(*(f"core.adaptive_{kind}_pool{rank}d" for kind in ("avg", "max") for rank in (1, 2, 3)))
def adaptive_pool(ctx: Context) -> Relation:
    """Freeze the spatial dimensions."""
    return touches(ctx, range(-_rank(ctx), 0))


@axis_rule("core.interpolate", "core.upsample", "core.upsampling_nearest2d", "core.upsampling_bilinear2d")
def interpolate(ctx: Context) -> Relation:
    """Freeze the spatial dimensions, which come after batch and channels."""
    return touches(ctx, range(2, len(ctx.inputs[0])))


@axis_rule("core.grid_sample")
def grid_sample(ctx: Context) -> Relation:
    """Freeze the space that is sampled; that of the result is the grid's."""
    x, grid = ctx.inputs
    ctx.unify(x[0], grid[0])
    ctx.freeze([*x[2:], grid[-1]], ALONG)
    return Relation([[x[0], x[1], *grid[1:-1]]])


@axis_rule("core.local_response_norm")
def local_response_norm(ctx: Context) -> Relation:
    """Freeze the channels, along which a window moves."""
    return touches(ctx, [1])


@axis_rule("core.pairwise_distance")
def pairwise_distance(ctx: Context) -> Relation:
    """Freeze the last axis, to each slot of which a constant is added before the norm."""
    for axes in ctx.inputs:
        ctx.freeze(axes[-1:], "a constant is added to every slot before the norm")
    rest = broadcast(ctx, ctx.inputs)[:-1]
    return Relation([[*rest, *([Fixed(1)] if ctx.module.keepdim else [])]])


RULES: tuple[AxisRule, ...] = (
    pool, adaptive_pool, interpolate, grid_sample, local_response_norm, pairwise_distance,
)  # fmt: skip
