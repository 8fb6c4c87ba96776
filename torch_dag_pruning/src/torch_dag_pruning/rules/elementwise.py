"""Ops that compute each element from the elements at its place."""

from __future__ import annotations

from torch_dag_pruning.axes import Axis
from torch_dag_pruning.axes.relation import AxisRule, Context, Relation, axis_rule
from torch_dag_pruning.rules.broadcasting import broadcast

_BINARY = (
    "add", "sub", "mul", "div", "floor_div", "remainder", "pow", "maximum", "minimum", "eq", "ne", "lt", "le", "gt",
    "ge", "and", "or", "xor", "atan2", "where", "masked_fill",
)  # fmt: skip
_UNARY = (
    "neg", "abs", "exp", "expm1", "log", "log1p", "sqrt", "rsqrt", "reciprocal", "square", "sin", "cos", "erf", "floor",
    "ceil", "round", "sign", "invert", "is_nan", "clamp", "cast", "cast_like",
)  # fmt: skip
_ACTIVATIONS = (
    "re_lu", "re_lu6", "leaky_re_lu", "elu", "selu", "celu", "gelu", "si_lu", "mish", "sigmoid", "tanh", "hardswish",
    "hardsigmoid", "hardtanh", "softplus", "softsign", "log_sigmoid", "tanhshrink", "hardshrink", "softshrink",
    "threshold",
)  # fmt: skip
_DROPS = (
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "functional_dropout",
    "drop_path", "stochastic_depth",
)  # fmt: skip


def _keys(*names: str) -> list[str]:
    return [f"core.{name}" for name in names]


@axis_rule(*_keys(*_DROPS, "identity", "contiguous", "detach", "keep"))
def passed(ctx: Context) -> Relation:
    """Pass the axes, and with them the zeros of dead slots."""
    return Relation([list(ctx.inputs[0])], cleared=tuple(ctx.cleared[0]) if ctx.cleared else ())


@axis_rule(*_keys(*_UNARY, *_ACTIVATIONS))
def unary(ctx: Context) -> Relation:
    """Pass the axes of the first operand; others give a type or a size only."""
    return Relation([list(ctx.inputs[0])])


@axis_rule(*_keys(*_BINARY), "core.training_switch")
def joined(ctx: Context) -> Relation:
    """Tie operands that broadcast against each other."""
    return Relation([broadcast(ctx, ctx.inputs)])


@axis_rule("core.p_re_lu")
def prelu(ctx: Context) -> Relation:
    """Tie the slopes to dimension 1, wherever there is more than one."""
    parameters = ctx.parameters("weight")
    slopes: Axis = parameters["weight"][0]
    if slopes.n > 1:
        ctx.unify(slopes, ctx.inputs[0][1])
    return Relation([list(ctx.inputs[0])], parameters=parameters, rewrite={"num_parameters": slopes})


@axis_rule("core.glu")
def glu(ctx: Context) -> Relation:
    """Tie the two halves, whose product is the result."""
    axes = list(ctx.inputs[0])
    dim = ctx.module.dim % len(axes)
    halves, half = ctx.reshape([axes[dim]], [2, -1])
    ctx.freeze([halves], "the two halves of a gated unit")
    axes[dim] = half
    return Relation([axes])


RULES: tuple[AxisRule, ...] = (passed, unary, joined, prelu, glu)
