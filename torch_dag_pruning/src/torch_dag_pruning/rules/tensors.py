"""Axis rules of tensors without operands: parameters, constants, and tensors made from sizes."""

from __future__ import annotations

from torch_dag_pruning.axes import Fixed
from torch_dag_pruning.axes.relation import Context, Relation, axis_rule
from torch_dag_pruning.rules.broadcasting import broadcast
from torch_dag_pruning.rules.layout import made
from torch_dag_pruning.rules.stand_ins import restated


@axis_rule("core.free_parameter")
def free_parameter(ctx: Context) -> Relation:
    """Give each dimension an axis of its own; the ops that use the parameter relate them to others."""
    own = ctx.parameters("value")
    return Relation([list(own["value"])], parameters=own)


@axis_rule("core.constant")
def constant(ctx: Context) -> Relation:
    """Give each dimension an atom of its own.

    The analysis calls this rule once for each use of the constant, whose name is ``ctx.vertex`` (O14).
    """
    axes = [ctx.atom(n, f"constant {dim}") for dim, n in enumerate(ctx.outputs[0])]
    return Relation([axes], parameters={"value": axes})


@axis_rule("core.full", "core.random", stand_in=restated)
def filled(ctx: Context) -> Relation:
    """Give each dimension the axis of its size; see `made`."""
    sizes = enumerate(zip(ctx.outputs[0], ctx.module.shape, strict=True))
    axes = [made(ctx, n, size, f"size {dim}") for dim, (n, size) in sizes]
    return Relation([axes], rewrite={"shape": tuple(axes)})


@axis_rule("core.arange", "core.linspace", stand_in=restated)
def counted(ctx: Context) -> Relation:
    """Freeze all slots, because each holds a number of its own."""
    return Relation([[Fixed(n, ctx.cause("numbered slots")) for n in ctx.outputs[0]]])


@axis_rule("core.state")
def state(ctx: Context) -> Relation:
    """Give a tensor that the model itself overwrites the axes of what is written to it.

    All vertices that read or write the tensor share its axes (O19).
    """
    own = ctx.parameters("value")
    broadcast(ctx, [own["value"], *ctx.inputs])
    return Relation([list(own["value"])], parameters=own)
