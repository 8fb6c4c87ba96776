"""Tensors that no operand gives: parameters, constants, and what is filled in by size."""

from __future__ import annotations

from torch_dag_pruning.axes import Fixed
from torch_dag_pruning.axes.relation import Context, Relation, axis_rule
from torch_dag_pruning.rules.layout import made
from torch_dag_pruning.rules.stand_ins import restated
from torch_dag_pruning.rules.touching import all_frozen


@axis_rule("core.free_parameter")
def free_parameter(ctx: Context) -> Relation:
    """Let every dimension be cut: who uses the tensor says along which lines."""
    own = ctx.parameters("value")
    return Relation([list(own["value"])], parameters=own)


@axis_rule("core.constant")
def constant(ctx: Context) -> Relation:
    """Let every dimension be cut, for each use in its own way: the analysis calls the rule once for each.

    ``ctx.vertex`` is then the name of the use.
    """
    axes = [ctx.atom(n, f"constant {dim}") for dim, n in enumerate(ctx.outputs[0])]
    return Relation([axes], parameters={"value": axes})


@axis_rule("core.full", "core.random", stand_in=restated)
def filled(ctx: Context) -> Relation:
    """Let every dimension be cut whose size is a number; the slots are all alike."""
    sizes = enumerate(zip(ctx.outputs[0], ctx.module.shape, strict=True))
    axes = [made(ctx, n, size, f"size {dim}") for dim, (n, size) in sizes]
    return Relation([axes], rewrite={"shape": tuple(axes)})


@axis_rule("core.arange", "core.linspace", stand_in=restated)
def counted(ctx: Context) -> Relation:
    """Keep every slot: each holds its own number."""
    return Relation([[Fixed(n, ctx.cause("numbered slots")) for n in ctx.outputs[0]]])


@axis_rule("core.state")
def state(ctx: Context) -> Relation:
    """Freeze what the model itself overwrites."""
    return all_frozen(ctx, "the model overwrites this state")
