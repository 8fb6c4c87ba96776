"""Axis rules of functions that reduce dimensions or run along some (O3, O7)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from torch_dag_pruning.axes import Axis, Fixed
from torch_dag_pruning.axes.relation import Axes, Context, Relation, Sink
from torch_dag_pruning.rules.broadcasting import broadcast
from torch_dag_pruning.rules.calls.declaration import FunctionRule, argument, function_rule
from torch_dag_pruning.rules.touching import ALONG, NO_RULE, all_frozen, frozen, touches


def _along(ctx: Context, place: int, default: Any) -> Relation:
    """Freeze the dimensions that the function runs along; None stands for all."""
    dim = argument(ctx, place, "dim", default)
    return touches(ctx, _listed(dim, len(ctx.inputs[0])))


def _listed(dim: Any, rank: int) -> Iterable[int]:
    if dim is None:
        return range(rank)
    return (dim,) if isinstance(dim, int) else dim


RUNNING = (
    FunctionRule(
        ("torch.cumprod", "torch.cummax", "torch.cummin", "torch.logcumsumexp"), partial(_along, place=1, default=0)
    ),
    FunctionRule(("torch.argsort", "functional.softmin", "special.softmax", "special.log_softmax"),
                 partial(_along, place=1, default=-1)),
    FunctionRule(("functional.gumbel_softmax",), partial(_along, place=4, default=-1)),
    FunctionRule(("torch.diff",), partial(_along, place=2, default=-1)),
    FunctionRule(("torch.flipud",), partial(_along, place=1, default=0)),
    FunctionRule(("torch.fliplr",), partial(_along, place=1, default=1)),
)  # fmt: skip


def _reduced(ctx: Context, dim: int, keepdim: int) -> Relation:
    """Freeze the dimensions that are reduced, all without ``dim``; the others pass."""
    if len(ctx.inputs) > 1:
        return all_frozen(ctx, NO_RULE)  # the elementwise form of torch.max and torch.min
    axes = ctx.inputs[0]
    given = argument(ctx, dim, "dim")
    dims = set(frozen(ctx, axes, _listed(given, len(axes))))
    return Relation([_rest(axes, dims, keepdim=bool(argument(ctx, keepdim, "keepdim"))) for _ in ctx.outputs])


def _rest(axes: Axes, dims: Iterable[int], *, keepdim: bool) -> Axes:
    one: Axes = [Fixed(1)]
    return [a for dim, axis in enumerate(axes) for a in ((one if keepdim else []) if dim in dims else [axis])]


REDUCTIONS = (
    FunctionRule(
        ("torch.all", "torch.any", "torch.max", "torch.median", "torch.min", "torch.mode", "torch.nanmean",
         "torch.nanmedian", "torch.nansum", "torch.prod"), partial(_reduced, dim=1, keepdim=2),
    ),
    FunctionRule(("torch.count_nonzero",), partial(_reduced, dim=1, keepdim=9)),
    FunctionRule(("torch.kthvalue",), partial(_reduced, dim=2, keepdim=3)),
)  # fmt: skip


@function_rule("linalg.norm", "linalg.vector_norm", "linalg.matrix_norm", "torch.norm")
def norm(ctx: Context) -> Relation:
    """Mask the operand along the reduced dimensions if zeros add nothing to this norm, otherwise freeze them (O7)."""
    axes: Axes = ctx.inputs[0]
    order = argument(ctx, 1, {"torch.norm": "p"}.get(ctx.module.function, "ord"))
    default = (-2, -1) if ctx.module.function == "linalg.matrix_norm" else None
    dims = [dim % len(axes) for dim in _listed(argument(ctx, 2, "dim", default), len(axes))] if axes else []
    if not _ignores_zeros(ctx.module.function, order, len(dims)):
        frozen(ctx, axes, dims)
    keepdim = bool(argument(ctx, 3, "keepdim"))
    return Relation([_rest(axes, dims, keepdim=keepdim)], _sinks(0, axes, dims))


def _ignores_zeros(function: str, order: Any, reduced: int) -> bool:
    """Tell whether a zero among the elements leaves the norm as it is."""
    is_matrix_norm = function == "linalg.matrix_norm" or (function == "linalg.norm" and reduced == 2)
    if order is None or order == "fro":
        return True
    return not is_matrix_norm and isinstance(order, (int, float)) and order > 0


def _sinks(operand: int, axes: Axes, dims: Iterable[int]) -> tuple[Sink, ...]:
    return tuple(Sink(operand, (dim,), (axes[dim],)) for dim in dims)


@function_rule("torch.cosine_similarity", "functional.cosine_similarity")
def cosine_similarity(ctx: Context) -> Relation:
    """Mask both operands along the reduced dimension: their norms are sums as well (O7)."""
    axes = broadcast(ctx, ctx.inputs)
    dim = argument(ctx, 2, "dim", 1) % len(axes)
    places = [(index, own, len(own) - len(axes) + dim) for index, own in enumerate(ctx.inputs)]
    sinks = [sink for index, own, place in places if place >= 0 for sink in _sinks(index, own, [place])]
    return Relation([[*axes[:dim], *axes[dim + 1 :]]], tuple(sinks))


@function_rule("torch.cdist")
def cdist(ctx: Context) -> Relation:
    """Mask both operands along the last axis, where equal slots add nothing to the distance (O7)."""
    x, y = ctx.inputs
    ctx.unify(x[-1], y[-1])
    if argument(ctx, 2, "p", 2.0) <= 0:
        ctx.freeze([x[-1]], ALONG)
    shared: Axis = x[-1]
    sinks = (Sink(0, (len(x) - 1,), (shared,)), Sink(1, (len(y) - 1,), (shared,)))
    return Relation([[*broadcast(ctx, [x[:-2], y[:-2]]), x[-2], y[-2]]], sinks)


@function_rule("torch.pairwise_distance", "functional.pairwise_distance")
def pairwise_distance(ctx: Context) -> Relation:
    """Freeze the last axis, because ``eps`` is added to each of its slots before the norm is taken."""
    for axes in ctx.inputs:
        ctx.freeze(axes[-1:], "a constant is added to every slot before the norm")
    rest = broadcast(ctx, ctx.inputs)[:-1]
    return Relation([[*rest, *([Fixed(1)] if argument(ctx, 4, "keepdim") else [])]])


@function_rule("functional.local_response_norm")
def local_response_norm(ctx: Context) -> Relation:
    """Freeze the channels, along which a window moves (O3)."""
    return touches(ctx, [1])
