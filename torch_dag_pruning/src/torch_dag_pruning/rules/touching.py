"""Freezing the dimensions along which an op runs, and passing the others (O3, O16)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch_dag_core.graph.nested import leaves
from torch_dag_pruning.axes import Fixed
from torch_dag_pruning.axes.relation import Axes, AxisRule, Context, Relation

ALONG = "the op runs along this axis"
NO_RULE = "no axis rule describes this op"


def frozen(ctx: Context, axes: Axes, dims: Iterable[int], reason: str = ALONG) -> list[int]:
    """Freeze the dimensions ``dims`` of a tensor, which may be negative, and return them counted from the left."""
    touched = sorted({dim % len(axes) for dim in dims}) if axes else []
    ctx.freeze([axes[dim] for dim in touched], reason)
    return touched


def touches(ctx: Context, dims: Iterable[int]) -> Relation:
    """Return the relation of an op that keeps the number of dimensions and runs along ``dims`` of its operand (O3)."""
    axes = ctx.inputs[0]
    touched = frozenset(frozen(ctx, axes, dims))
    return Relation([moved(ctx, axes, shape, touched) for shape in ctx.outputs])


def moved(ctx: Context, axes: Axes, shape: Sequence[int], touched: frozenset[int]) -> Axes:
    """Return the axes of a result: fixed with the size in ``shape`` if touched, otherwise those of the operand."""
    return [Fixed(n, ctx.cause(ALONG)) if dim in touched else axes[dim] for dim, n in enumerate(shape)]


def all_frozen(ctx: Context, reason: str) -> Relation:
    """Freeze all operands, parameters, buffers and results of the op (O16)."""
    for axes in ctx.inputs:
        ctx.freeze(leaves(axes), reason)
    for name, tensor in (*ctx.module.named_parameters(), *ctx.module.named_buffers()):
        ctx.freeze(ctx.store.of_tensor(tensor, f"{ctx.vertex}.{name}"), reason)
    return Relation([[Fixed(n, ctx.cause(reason)) for n in shape] for shape in ctx.outputs])


def kept_whole(*keys: str) -> AxisRule:
    """Return a rule that freezes everything that these ops touch (O16)."""
    return AxisRule(keys, lambda ctx: all_frozen(ctx, NO_RULE))


def stays_put(kernel: int, stride: int, padding: Any) -> bool:
    """Return whether a window reads one position at a time and skips none, so that its axis passes through (O3)."""
    return kernel == 1 and stride == 1 and padding in (0, "same", "valid")


def per_dim(value: Any, rank: int) -> tuple[Any, ...]:
    """Return one entry per spatial dimension of a setting that may be a single value for all."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * rank
