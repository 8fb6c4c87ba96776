"""Axis rules of ops that reduce dimensions or run along one (O3, O7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from torch_dag_pruning.axes import Axis, Fixed, product
from torch_dag_pruning.axes.relation import Axes, Context, Relation, Sink, axis_rule
from torch_dag_pruning.masked_ops import reductions
from torch_dag_pruning.masked_ops.form import MaskOf
from torch_dag_pruning.rules.broadcasting import broadcast
from torch_dag_pruning.rules.stand_ins import zeros
from torch_dag_pruning.rules.touching import frozen, touches

_POSITIONS = "the result is a position along this axis"


def _dims(ctx: Context, dim: Any) -> list[int]:
    """Return the reduced dimensions counted from the left, ascending; None and () mean all."""
    rank = len(ctx.inputs[0])
    given = (dim,) if isinstance(dim, int) else dim
    return sorted({d % rank for d in given}) if given and rank else list(range(rank))


def _rest(ctx: Context, dims: Sequence[int], *, keepdim: bool) -> Axes:
    one: Axes = [Fixed(1)]
    kept = ((one if keepdim else []) if dim in dims else [axis] for dim, axis in enumerate(ctx.inputs[0]))
    return [axis for part in kept for axis in part]


def _sinks(operand: int, axes: Axes, dims: Sequence[int]) -> tuple[Sink, ...]:
    return tuple(Sink(operand, (dim,), (axes[dim],)) for dim in dims)


@axis_rule("core.sum", "core.norm", stand_in=zeros)
def total(ctx: Context) -> Relation:
    """Mask the operand along the reduced dimensions, where zeros add nothing (O7); norms of order <= 0 freeze them."""
    dims = _dims(ctx, ctx.module.dim)
    p = getattr(ctx.module, "p", 1)
    if isinstance(p, (int, float)) and p <= 0:
        frozen(ctx, ctx.inputs[0], dims)
    return Relation([_rest(ctx, dims, keepdim=ctx.module.keepdim)], _sinks(0, ctx.inputs[0], dims))


def _statistic(
    ctx: Context, masked: Callable[[nn.Module, Sequence[int], Sequence[Axis], MaskOf], nn.Module], dim: Any,
    least: int, *, keepdim: bool,
) -> Relation:  # fmt: skip
    dims = _dims(ctx, dim)
    axes = tuple(ctx.inputs[0][place] for place in dims)
    rest = _rest(ctx, dims, keepdim=keepdim)
    return Relation(
        [list(rest) for _ in ctx.outputs],
        masked=lambda module, mask_of: masked(module, dims, axes, mask_of),
        statistics=axes,
        minimum=((product(*axes), least),) if least else (),
    )


@axis_rule("core.mean", stand_in=zeros)
def mean(ctx: Context) -> Relation:
    """Average over the kept slots (M3)."""
    return _statistic(ctx, reductions.MaskedMean, ctx.module.dim, 0, keepdim=ctx.module.keepdim)


@axis_rule("core.logsumexp")
def logsumexp(ctx: Context) -> Relation:
    """Reduce over the kept slots (M3)."""
    return _statistic(ctx, reductions.MaskedLogSumExp, ctx.module.dim, 0, keepdim=ctx.module.keepdim)


@axis_rule("core.amax", "core.amin")
def extreme(ctx: Context) -> Relation:
    """Reduce over the kept slots (M3), of which at least one has to stay (P3)."""
    return _statistic(ctx, reductions.MaskedExtreme, ctx.module.dim, 1, keepdim=ctx.module.keepdim)


@axis_rule("core.var", "core.std", "core.var_mean", "core.std_mean")
def variance(ctx: Context) -> Relation:
    """Reduce over the kept slots (M3); at least ``correction + 1`` have to stay (P3)."""
    least = int(ctx.module.correction) + 1
    return _statistic(ctx, reductions.MaskedVariance, ctx.module.dim, least, keepdim=ctx.module.keepdim)


@axis_rule("core.max_along", "core.min_along")
def extreme_along(ctx: Context) -> Relation:
    """Reduce over the kept slots (M3); the axis is frozen if a reader uses the positions (O7)."""
    if ctx.reads is None or 1 in ctx.reads:
        frozen(ctx, ctx.inputs[0], [ctx.module.dim], _POSITIONS)
    return _statistic(ctx, reductions.MaskedExtremeAlong, ctx.module.dim, 1, keepdim=ctx.module.keepdim)


@axis_rule("core.argmax", "core.argmin")
def position(ctx: Context) -> Relation:
    """Freeze the reduced dimensions, because the result is a position along them (O7)."""
    dims = frozen(ctx, ctx.inputs[0], _dims(ctx, ctx.module.dim), _POSITIONS)
    return Relation([_rest(ctx, dims, keepdim=ctx.module.keepdim)])


@axis_rule("core.cumsum", "core.sort", "core.topk")
def along(ctx: Context) -> Relation:
    """Freeze the axis that the op runs along (O3)."""
    return touches(ctx, [ctx.module.dim])


# Softmax ---------------------------------------------------------------------------------------------------------


@axis_rule("core.softmax", "core.log_softmax", "core.softmin", "core.softmax2d")
def softmax(ctx: Context) -> Relation:
    """Normalise over the kept slots (M3); the weights of removed slots are 0, except for log-softmax (M4)."""
    axes: Axes = ctx.inputs[0]
    if not axes:
        return Relation([[]])
    dim = _softmax_dim(ctx.module, len(axes)) % len(axes)
    return Relation(
        [list(axes)],
        masked=lambda module, mask_of: reductions.MaskedSoftmax(module, dim, axes[dim], mask_of),
        statistics=(axes[dim],),
        cleared=() if isinstance(ctx.module, nn.LogSoftmax) else (dim,),
    )


def _softmax_dim(module: Any, rank: int) -> int:
    if isinstance(module, nn.Softmax2d):
        return -3
    legacy = 0 if rank in (0, 1, 3) else 1
    return legacy if module.dim is None else int(module.dim)


@axis_rule("core.cosine_similarity")
def cosine_similarity(ctx: Context) -> Relation:
    """Mask both operands along the reduced dimension: their norms are sums as well (O7)."""
    axes = broadcast(ctx, ctx.inputs)
    dim = ctx.module.dim % len(axes)
    sinks = [
        Sink(operand, (len(own) - len(axes) + dim,), (own[len(own) - len(axes) + dim],))
        for operand, own in enumerate(ctx.inputs)
        if len(own) - len(axes) + dim >= 0
    ]
    return Relation([[*axes[:dim], *axes[dim + 1 :]]], tuple(sinks))
