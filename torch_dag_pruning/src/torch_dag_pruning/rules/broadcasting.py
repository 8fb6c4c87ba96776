"""Unification of operands that broadcast against each other (O4)."""

from __future__ import annotations

from collections.abc import Sequence

from torch_dag_pruning.axes import Axis, Fixed
from torch_dag_pruning.axes.relation import Axes, Context


def broadcast(ctx: Context, operands: Sequence[Axes]) -> Axes:
    """Unify the dimensions of equal size above 1, aligned from the right, and return the axes of the result."""
    rank = max((len(axes) for axes in operands), default=0)
    return [_common(ctx, _column(operands, dim - rank)) for dim in range(rank)]


def _column(operands: Sequence[Axes], place: int) -> list[Axis]:
    """Return the axis at ``place`` (negative, from the right) of every operand that has this dimension."""
    return [axes[place] for axes in operands if len(axes) >= -place]


def _common(ctx: Context, axes: Sequence[Axis]) -> Axis:
    wide = [axis for axis in axes if axis.n != 1]
    for other in wide[1:]:
        ctx.unify(wide[0], other)
    return wide[0] if wide else Fixed(1)
