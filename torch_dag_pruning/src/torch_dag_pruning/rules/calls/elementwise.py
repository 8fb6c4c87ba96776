"""Axis rules of functions that compute every element from the elements at its place (O4, O5)."""

from __future__ import annotations

from torch_dag_pruning.axes import Axis
from torch_dag_pruning.axes.relation import Context, Relation
from torch_dag_pruning.rules.broadcasting import broadcast
from torch_dag_pruning.rules.calls.declaration import function_rule, operand_axes


@function_rule(
    "torch.acos", "torch.acosh", "torch.addcdiv", "torch.addcmul", "torch.angle", "torch.asin", "torch.asinh",
    "torch.atan", "torch.atanh", "torch.bernoulli", "torch.binomial", "torch.celu", "torch.clamp", "torch.clamp_max",
    "torch.clamp_min", "torch.clone", "torch.complex", "torch.conj", "torch.copysign", "torch.cosh", "torch.deg2rad",
    "torch.digamma", "torch.erfc", "torch.erfinv", "torch.exp2", "torch.fix", "torch.float_power", "torch.fmax",
    "torch.fmin", "torch.fmod", "torch.frac", "torch.heaviside", "torch.hypot", "torch.imag", "torch.isclose",
    "torch.isfinite", "torch.isinf", "torch.isneginf", "torch.isposinf", "torch.isreal", "torch.lerp", "torch.lgamma",
    "torch.log10", "torch.log2", "torch.logaddexp", "torch.logaddexp2", "torch.logit", "torch.nan_to_num",
    "torch.nextafter", "torch.normal", "torch.poisson", "torch.polar", "torch.rad2deg", "torch.real",
    "torch.resolve_conj", "torch.resolve_neg", "torch.sgn", "torch.sinc", "torch.sinh", "torch.tan", "torch.trunc",
    "torch.xlogy", "torch.fake_quantize_per_tensor_affine",
    "functional.hardshrink", "functional.logsigmoid", "functional.rrelu", "functional.softshrink",
    "functional.softsign", "functional.tanhshrink", "functional.threshold",
    "special.bessel_j0", "special.bessel_j1", "special.entr", "special.expit", "special.exp2", "special.gammaln",
    "special.i0", "special.i0e", "special.i1", "special.ndtr", "special.xlog1py", "special.zeta",
)  # fmt: skip
def joined(ctx: Context) -> Relation:
    """Unify the dimensions of operands that broadcast against each other (O4)."""
    return Relation([broadcast(ctx, ctx.inputs)])


@function_rule(
    "functional.dropout", "functional.dropout1d", "functional.dropout2d", "functional.dropout3d",
    "functional.alpha_dropout", "functional.feature_alpha_dropout",
    "torch.zeros_like", "torch.ones_like", "torch.full_like", "tensor.type",
)  # fmt: skip
def passed(ctx: Context) -> Relation:
    """Pass the axes of the first operand."""
    return Relation([list(ctx.inputs[0])])


@function_rule("torch.prelu")
def prelu(ctx: Context) -> Relation:
    """Unify the slopes with dimension 1 if there is more than one slope (O5)."""
    x, slopes = ctx.inputs
    slope: Axis | None = slopes[0] if slopes else None
    if slope is not None and slope.n > 1:
        ctx.unify(slope, x[1])
    return Relation([list(x)])


@function_rule("functional.instance_norm")
def instance_norm(ctx: Context) -> Relation:
    """Tie scale, shift and running statistics to dimension 1, and freeze the axes behind it, which are averaged."""
    x = ctx.inputs[0]
    ctx.freeze(x[2:], "averaged over in every sample and channel")
    names = ("running_mean", "running_var", "weight", "bias")
    for place, name in enumerate(names, start=1):
        own = operand_axes(ctx, place, name)
        if own is not None:
            ctx.unify(own[0], x[1])
    return Relation([list(x)])
