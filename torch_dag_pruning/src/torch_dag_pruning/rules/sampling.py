"""Axis rules of pooling, resampling and other ops with windows (O3)."""

from __future__ import annotations

from functools import partial

from torch_dag_pruning.axes import Fixed
from torch_dag_pruning.axes.relation import Context, Relation, axis_rule
from torch_dag_pruning.rules.broadcasting import broadcast
from torch_dag_pruning.rules.stand_ins import restated
from torch_dag_pruning.rules.touching import ALONG, per_dim, stays_put, touches


def _pool(ctx: Context, rank: int) -> Relation:
    """Freeze the spatial dimensions along which the window moves (O3)."""
    module = ctx.module
    kernel = per_dim(module.kernel_size, rank)
    stride = per_dim(module.kernel_size if module.stride is None else module.stride, rank)
    padding = per_dim(getattr(module, "padding", 0), rank)
    settings = zip(range(-rank, 0), kernel, stride, padding, strict=True)
    return touches(ctx, [dim for dim, *setting in settings if not stays_put(*setting)])


def _adaptive_pool(ctx: Context, rank: int) -> Relation:
    """Freeze the last ``rank`` dimensions, which are pooled."""
    return touches(ctx, range(-rank, 0))


def _resized(ctx: Context) -> Relation:
    """Freeze the spatial dimensions, which follow batch and channels."""
    return touches(ctx, range(2, len(ctx.inputs[0])))


POOLS = (
    axis_rule("core.max_pool1d", "core.avg_pool1d", "core.lp_pool1d")(partial(_pool, rank=1)),
    axis_rule("core.max_pool2d", "core.avg_pool2d", "core.lp_pool2d")(partial(_pool, rank=2)),
    axis_rule("core.max_pool3d", "core.avg_pool3d")(partial(_pool, rank=3)),
    axis_rule("core.adaptive_avg_pool1d", "core.adaptive_max_pool1d")(partial(_adaptive_pool, rank=1)),
    axis_rule("core.adaptive_avg_pool2d", "core.adaptive_max_pool2d")(partial(_adaptive_pool, rank=2)),
    axis_rule("core.adaptive_avg_pool3d", "core.adaptive_max_pool3d")(partial(_adaptive_pool, rank=3)),
)
INTERPOLATE = axis_rule("core.interpolate", stand_in=restated)(_resized)
UPSAMPLE = axis_rule("core.upsample", "core.upsampling_nearest2d", "core.upsampling_bilinear2d")(_resized)


@axis_rule("core.grid_sample")
def grid_sample(ctx: Context) -> Relation:
    """Freeze the sampled spatial dimensions; the result has the spatial axes of the grid."""
    x, grid = ctx.inputs
    ctx.unify(x[0], grid[0])
    ctx.freeze([*x[2:], grid[-1]], ALONG)
    return Relation([[x[0], x[1], *grid[1:-1]]])


@axis_rule("core.local_response_norm")
def local_response_norm(ctx: Context) -> Relation:
    """Freeze the channels, along which a window moves (O3)."""
    return touches(ctx, [1])


@axis_rule("core.pairwise_distance")
def pairwise_distance(ctx: Context) -> Relation:
    """Freeze the last axis, because ``eps`` is added to each of its slots before the norm is taken."""
    for axes in ctx.inputs:
        ctx.freeze(axes[-1:], "a constant is added to every slot before the norm")
    rest = broadcast(ctx, ctx.inputs)[:-1]
    return Relation([[*rest, *([Fixed(1)] if ctx.module.keepdim else [])]])
