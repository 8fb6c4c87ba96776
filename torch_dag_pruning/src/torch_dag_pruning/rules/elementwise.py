"""Axis rules of elementwise ops (O4), and of ops that only look elementwise (O5)."""

from __future__ import annotations

from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_core.ops.arithmetic import Cast
from torch_dag_pruning.axes import Axis
from torch_dag_pruning.axes.relation import Context, Relation, axis_rule
from torch_dag_pruning.axes.stand_in import Emptied
from torch_dag_pruning.rules.broadcasting import broadcast


@axis_rule(
    "core.dropout", "core.dropout1d", "core.dropout2d", "core.dropout3d", "core.alpha_dropout",
    "core.rrelu",
    "core.feature_alpha_dropout", "core.functional_dropout", "core.drop_path", "core.stochastic_depth", "core.identity",
    "core.detach", "core.keep",
)  # fmt: skip
def passed(ctx: Context) -> Relation:
    """Pass the axes of the operand, and the record of the dimensions where removed slots are zero (M4)."""
    return Relation([list(ctx.inputs[0])], cleared=tuple(ctx.cleared[0]) if ctx.cleared else ())


def _unary(ctx: Context) -> Relation:
    """Pass the axes of the first operand; others are read only for their shape, dtype or device (O13)."""
    return Relation([list(ctx.inputs[0])])


UNARY = axis_rule(
    "core.neg", "core.abs", "core.exp", "core.expm1", "core.log", "core.log1p", "core.sqrt", "core.rsqrt",
    "core.reciprocal", "core.square", "core.sin", "core.cos", "core.erf", "core.floor", "core.ceil", "core.round",
    "core.sign", "core.invert", "core.isnan", "core.clamp", "core.cast", "core.relu", "core.relu6", "core.leaky_relu",
    "core.elu", "core.selu", "core.celu", "core.gelu", "core.silu", "core.mish", "core.sigmoid", "core.tanh",
    "core.hardswish", "core.hardsigmoid", "core.hardtanh", "core.softplus", "core.softsign", "core.logsigmoid",
    "core.tanhshrink", "core.hardshrink", "core.softshrink", "core.threshold",
)(_unary)  # fmt: skip


def cast(graph: Emptied, vertex: InnerVertex, _: set[int]) -> None:
    """Replace ``cast_like``, whose second operand is empty, by a cast to the dtype that it had."""
    graph.substitute(vertex, Cast(graph.dtype_of(vertex.name)), vertex.predecessors[:1])


CAST_LIKE = axis_rule("core.cast_like", stand_in=cast)(_unary)


@axis_rule(
    "core.add", "core.sub", "core.mul", "core.div", "core.floor_div", "core.remainder", "core.pow", "core.maximum",
    "core.minimum", "core.eq", "core.ne", "core.lt", "core.le", "core.gt", "core.ge", "core.and", "core.or", "core.xor",
    "core.atan2", "core.where", "core.masked_fill", "core.training_switch",
)  # fmt: skip
def joined(ctx: Context) -> Relation:
    """Unify the dimensions of operands that broadcast against each other (O4)."""
    return Relation([broadcast(ctx, ctx.inputs)])


@axis_rule("core.prelu")
def prelu(ctx: Context) -> Relation:
    """Unify the slopes with dimension 1 if there is more than one slope (O5)."""
    parameters = ctx.parameters("weight")
    slopes: Axis = parameters["weight"][0]
    if slopes.n > 1:
        ctx.unify(slopes, ctx.inputs[0][1])
    return Relation([list(ctx.inputs[0])], parameters=parameters, rewrite={"num_parameters": slopes})


@axis_rule("core.glu")
def glu(ctx: Context) -> Relation:
    """Split the gated dimension into (2, n): its halves are tied slot by slot, and the result has n slots (O5)."""
    axes = list(ctx.inputs[0])
    dim = ctx.module.dim % len(axes)
    halves, half = ctx.reshape([axes[dim]], [2, -1])
    ctx.freeze([halves], "the two halves of a gated unit")
    axes[dim] = half
    return Relation([axes])
