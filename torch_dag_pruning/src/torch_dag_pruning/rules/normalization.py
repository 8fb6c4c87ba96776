"""Axis rules of normalisations; masked, their statistics run over the kept slots (O6, M3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import nn

from torch_dag_pruning.axes import Axis
from torch_dag_pruning.axes.relation import Axes, Context, Relation, axis_rule
from torch_dag_pruning.masked_ops import normalizations
from torch_dag_pruning.rules.touching import frozen

_AFFINE = ("weight", "bias")


def _tie(ctx: Context, axes: Sequence[Axis], tensors: Sequence[Axes]) -> None:
    """Unify the dimensions of scale and shift tensors with the last of ``axes``, aligned from the right."""
    for tensor in tensors:
        for axis, own in zip(reversed(axes), reversed(tensor), strict=False):
            if own.n > 1:
                ctx.unify(axis, own)


# Over the last dimensions ----------------------------------------------------------------------------------------


@axis_rule("core.layer_norm")
def layer_norm(ctx: Context) -> Relation:
    """Tie scale and shift to the normalised dimensions, over which the statistics run (O6)."""
    own = ctx.parameters(*_AFFINE)
    return _over_last(ctx, normalizations.MaskedLayerNorm, list(own.values()), own)


@axis_rule("core.layer_norm_function")
def layer_norm_function(ctx: Context) -> Relation:
    """Apply the rule of layer norms with scale and shift as operands."""
    return _over_last(ctx, normalizations.MaskedLayerNorm, ctx.inputs[1:], {})


@axis_rule("core.rms_norm")
def rms_norm(ctx: Context) -> Relation:
    """Tie the scale to the normalised dimensions, over which the statistics run (O6)."""
    own = ctx.parameters("weight")
    return _over_last(ctx, normalizations.MaskedRMSNorm, list(own.values()), own)


@axis_rule("core.rms_norm_function")
def rms_norm_function(ctx: Context) -> Relation:
    """Apply the rule of RMS norms with the scale as an operand."""
    return _over_last(ctx, normalizations.MaskedRMSNorm, ctx.inputs[1:], {})


def _over_last(
    ctx: Context, masked: Callable[..., nn.Module], affine: Sequence[Axes], parameters: dict[str, Axes]
) -> Relation:
    axes: Axes = ctx.inputs[0]
    last = tuple(axes[len(axes) - len(ctx.module.normalized_shape) :])
    _tie(ctx, last, affine)
    return Relation(
        [list(axes)],
        parameters=parameters,
        rewrite={"normalized_shape": last},
        masked=lambda module, mask_of: masked(module, last, mask_of),
        statistics=last,
    )


# Over groups of channels -----------------------------------------------------------------------------------------


@axis_rule("core.group_norm")
def group_norm(ctx: Context) -> Relation:
    """Split the channels into (groups, each); the statistics run over each and the spatial axes (O6)."""
    own = ctx.parameters(*_AFFINE)
    return _over_groups(ctx, list(own.values()), own)


@axis_rule("core.group_norm_function")
def group_norm_function(ctx: Context) -> Relation:
    """Apply the rule of group norms with scale and shift as operands."""
    return _over_groups(ctx, ctx.inputs[1:], {})


def _over_groups(ctx: Context, affine: Sequence[Axes], parameters: dict[str, Axes]) -> Relation:
    axes: Axes = ctx.inputs[0]
    _tie(ctx, axes[1:2], affine)
    group, each = ctx.reshape([axes[1]], [ctx.module.num_groups, -1])
    over = (each, *axes[2:])
    return Relation(
        [list(axes)],
        parameters=parameters,
        rewrite={"num_groups": group, "num_channels": axes[1]},
        masked=lambda module, mask_of: normalizations.MaskedGroupNorm(module, over, mask_of),
        statistics=over,
    )


# Over the batch --------------------------------------------------------------------------------------------------


@axis_rule("core.batch_norm1d", "core.batch_norm2d", "core.batch_norm3d")
def batch_norm(ctx: Context) -> Relation:
    """Tie scale, shift and running statistics to dimension 1.

    In training, the statistics run over all other dimensions, which have a mask where they hold slots (O6).
    """
    own = ctx.parameters(*_AFFINE, "running_mean", "running_var")
    return _over_batch(ctx, list(own.values()), own)


@axis_rule("core.batch_norm_function")
def batch_norm_function(ctx: Context) -> Relation:
    """Apply the rule of batch norms with scale and shift as operands."""
    return _over_batch(ctx, ctx.inputs[1:], {})


def _over_batch(ctx: Context, affine: Sequence[Axes], parameters: dict[str, Axes]) -> Relation:
    axes: Axes = ctx.inputs[0]
    _tie(ctx, axes[1:2], affine)
    over = (axes[0], *axes[2:])
    return Relation(
        [list(axes)],
        parameters=parameters,
        rewrite={"num_features": axes[1]},
        masked=lambda module, mask_of: normalizations.MaskedBatchNorm(module, over, mask_of),
        statistics=over,
    )


@axis_rule("core.frozen_batch_norm")
def frozen_batch_norm(ctx: Context) -> Relation:
    """Tie the statistics, which are operands, to dimension 1; nothing is summed."""
    _tie(ctx, ctx.inputs[0][1:2], ctx.inputs[1:])
    return Relation([list(ctx.inputs[0])])


def _instance_norm(ctx: Context, rank: int) -> Relation:
    """Tie scale, shift and running statistics to the channels, and freeze the spatial axes, which are averaged over."""
    axes: Axes = ctx.inputs[0]
    channel = len(axes) - rank - 1
    frozen(ctx, axes, range(channel + 1, len(axes)))
    own = ctx.parameters(*_AFFINE, "running_mean", "running_var")
    _tie(ctx, axes[channel : channel + 1], list(own.values()))
    return Relation([list(axes)], parameters=own, rewrite={"num_features": axes[channel]})


INSTANCE_NORMS = (
    axis_rule("core.instance_norm1d")(partial(_instance_norm, rank=1)),
    axis_rule("core.instance_norm2d")(partial(_instance_norm, rank=2)),
    axis_rule("core.instance_norm3d")(partial(_instance_norm, rank=3)),
)


@axis_rule("core.normalize")
def normalize(ctx: Context) -> Relation:
    """Divide by the p-norm over the kept slots (O6); ``p <= 0`` freezes the dimensions."""
    axes: Axes = ctx.inputs[0]
    given: Any = ctx.module.dim
    dims = sorted({dim % len(axes) for dim in ([given] if isinstance(given, int) else given)})
    if ctx.module.p <= 0:
        frozen(ctx, axes, dims)
    over = tuple(axes[dim] for dim in dims)
    return Relation(
        [list(axes)],
        masked=lambda module, mask_of: normalizations.MaskedNormalize(module, dims, over, mask_of),
        statistics=over,
    )
