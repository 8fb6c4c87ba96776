"""Axis rules of ops that sum over an axis; the summed operand is masked on its edge into the op (O1, O2, M1)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch_dag_core.graph.values import Size
from torch_dag_pruning.axes import Axis, Fixed, product
from torch_dag_pruning.axes.relation import Axes, Context, Relation, Sink, axis_rule
from torch_dag_pruning.rules.broadcasting import broadcast
from torch_dag_pruning.rules.stand_ins import bias_along, bias_operand_along, zeros
from torch_dag_pruning.rules.touching import ALONG, per_dim, stays_put


@axis_rule("core.linear", stand_in=bias_along(-1))
def linear(ctx: Context) -> Relation:
    """Unify the last axis with dimension 1 of the weight; the last axis of the result is dimension 0 (O1)."""
    own = ctx.parameters("weight", "bias")
    out, inner = own["weight"]
    return _affine(ctx, out, inner, own.get("bias"), own, {"in_features": inner, "out_features": out})


@axis_rule("core.linear_function", stand_in=bias_operand_along(-1))
def linear_function(ctx: Context) -> Relation:
    """Apply the rule of ``linear`` with weight and bias as operands; a vector as weight leaves no output axis."""
    weight = ctx.inputs[1]
    bias = ctx.inputs[2] if len(ctx.inputs) > 2 else None
    if len(weight) == 1:
        return _product(ctx, ctx.inputs[0], [weight[0]], [])
    return _affine(ctx, weight[0], weight[1], bias, {}, {})


def _affine(
    ctx: Context, out: Axis, inner: Axis, bias: Axes | None, parameters: dict[str, Axes], rewrite: dict[str, Any]
) -> Relation:
    x = ctx.inputs[0]
    ctx.unify(x[-1], inner)
    if bias:
        _tie_bias(ctx, bias, out)
    sink = Sink(0, (len(x) - 1,), (inner,))
    return Relation([[*x[:-1], out]], (sink,), parameters, rewrite, learned=(out,))


def _tie_bias(ctx: Context, bias: Axes, out: Axis) -> None:
    if bias[-1].n > 1:
        ctx.unify(bias[-1], out)


@axis_rule("core.bilinear")
def bilinear(ctx: Context) -> Relation:
    """Contract the last axes of the operands with dimensions 1 and 2 of the weight, and mask both operands (O1)."""
    own = ctx.parameters("weight", "bias")
    out, first, second = own["weight"]
    x, y = ctx.inputs
    ctx.unify(x[-1], first)
    ctx.unify(y[-1], second)
    if "bias" in own:
        ctx.unify(own["bias"][0], out)
    batch = broadcast(ctx, [x[:-1], y[:-1]])
    sinks = (Sink(0, (len(x) - 1,), (first,)), Sink(1, (len(y) - 1,), (second,)))
    rewrite = {"in1_features": first, "in2_features": second, "out_features": out}
    return Relation([[*batch, out]], sinks, own, rewrite, learned=(out,))


# Convolutions ----------------------------------------------------------------------------------------------------


@axis_rule("core.conv1d", "core.conv2d", "core.conv3d", stand_in=bias_along(1))
def convolution(ctx: Context) -> Relation:
    """Relate a convolution with g groups: input channels are (g, i), output channels (g, o), the sum is over i (O2)."""
    own = ctx.parameters("weight", "bias")
    return _convolution(ctx, own["weight"], own.get("bias"), own)


@axis_rule("core.convolution", stand_in=bias_operand_along(1))
def convolution_function(ctx: Context) -> Relation:
    """Apply the rule of convolutions with weight and bias as operands."""
    return _convolution(ctx, ctx.inputs[1], ctx.inputs[2] if len(ctx.inputs) > 2 else None, {})


def _convolution(ctx: Context, weight: Axes, bias: Axes | None, parameters: dict[str, Axes]) -> Relation:
    out, inner = weight[:2]
    groups = ctx.number(ctx.module.groups)
    channel = len(ctx.inputs[0]) - len(weight) + 1
    group, ours = ctx.reshape([ctx.inputs[0][channel]], [groups, inner.n])
    other, _ = ctx.reshape([out], [groups, -1])
    ctx.unify(group, other)
    ctx.unify(ours, inner)
    if bias:
        ctx.unify(bias[0], out)
    ctx.freeze(weight[2:], "a kernel's extent")
    axes = [*ctx.inputs[0][:channel], out, *_slid(ctx, channel + 1)]
    rewrite = {"in_channels": ctx.inputs[0][channel], "out_channels": out, "groups": group}
    # A mask of the activation would have a part for each group, so the weight is masked if their number is not fixed.
    sink = Sink(1, (1,), (inner,)) if isinstance(ctx.module.groups, Size) else _group_sink(channel, groups, inner)
    return Relation([axes], (sink,), parameters, rewrite, learned=(out,))


@axis_rule("core.conv_transpose1d", "core.conv_transpose2d", "core.conv_transpose3d", stand_in=bias_along(1))
def transposed_convolution(ctx: Context) -> Relation:
    """Relate a transposed convolution, whose weight has the shape (g * i, o, *kernel) (O2)."""
    own = ctx.parameters("weight", "bias")
    return _transposed(ctx, own["weight"], own.get("bias"), own)


@axis_rule("core.transposed_convolution", stand_in=bias_operand_along(1))
def transposed_convolution_function(ctx: Context) -> Relation:
    """Apply the rule of transposed convolutions with weight and bias as operands."""
    return _transposed(ctx, ctx.inputs[1], ctx.inputs[2] if len(ctx.inputs) > 2 else None, {})


def _transposed(ctx: Context, weight: Axes, bias: Axes | None, parameters: dict[str, Axes]) -> Relation:
    channels, each = weight[:2]
    groups = ctx.number(ctx.module.groups)
    channel = len(ctx.inputs[0]) - len(weight) + 1
    ctx.unify(ctx.inputs[0][channel], channels)
    group, inner = ctx.reshape([channels], [groups, -1])
    out = product(group, each)
    if bias:
        ctx.unify(bias[0], out)
    ctx.freeze(weight[2:], "a kernel's extent")
    axes = [*ctx.inputs[0][:channel], out, *_slid(ctx, channel + 1)]
    rewrite = {"in_channels": channels, "out_channels": out, "groups": group}
    return Relation([axes], (_group_sink(channel, groups, inner),), parameters, rewrite, learned=(out,))


def _group_sink(channel: int, groups: int, inner: Axis) -> Sink:
    """Return the mask of the channels within each group, which are summed over; groups are not."""
    return Sink(0, (channel,), (product(Fixed(groups), inner),))


def _slid(ctx: Context, first: int) -> Iterator[Axis]:
    """Yield the spatial axes of the result; an axis along which the kernel moves is frozen (O3)."""
    module, shape = ctx.module, ctx.outputs[0]
    rank = len(shape) - first
    settings = zip(_kernel(ctx, rank), per_dim(module.stride, rank), per_dim(module.padding, rank), strict=True)
    for dim, setting in enumerate(settings, start=first):
        axis = ctx.inputs[0][dim]
        if stays_put(*setting) and axis.n == shape[dim]:
            yield axis
        else:
            ctx.freeze([axis], ALONG)
            yield Fixed(shape[dim], ctx.cause(ALONG))


def _kernel(ctx: Context, rank: int) -> Sequence[int]:
    weight = getattr(ctx.module, "weight", None)
    shape: Sequence[int] = ctx.shapes[1] if weight is None else weight.shape
    return shape[-rank:]


# Products --------------------------------------------------------------------------------------------------------


@axis_rule("core.matmul", stand_in=zeros)
def matmul(ctx: Context) -> Relation:
    """Unify the last axis of the first operand with the last but one of the second, and mask the first (O1)."""
    x, y = ctx.inputs
    rows = x[-2:-1]
    columns = y[-1:] if len(y) > 1 else []
    relation = _product(ctx, x, y[-2:-1] if len(y) > 1 else y, columns)
    batch = broadcast(ctx, [x[:-2], y[:-2]])
    learned = (*(columns if any(ctx.learned[1:2]) else ()), *(rows if any(ctx.learned[:1]) else ()))
    return Relation([[*batch, *rows, *columns]], relation.sinks, learned=learned)


def _product(ctx: Context, x: Axes, inner: Axes, columns: Axes) -> Relation:
    ctx.unify(x[-1], inner[0])
    return Relation([[*x[:-1], *columns]], (Sink(0, (len(x) - 1,), (inner[0],)),))


@axis_rule("core.einsum", stand_in=zeros)
def einsum(ctx: Context) -> Relation:
    """Unify axes with equal letters, and mask those that are summed over (O1)."""
    terms, result = ctx.module.terms([len(axes) for axes in ctx.inputs])
    return contracted(ctx, dict(enumerate(terms)), result)


def contracted(ctx: Context, terms: Mapping[int, Sequence[str]], result: Sequence[str]) -> Relation:
    """Return the relation of a sum of products of operands.

    Axes with equal letters are unified. Each letter that is summed over is masked on the first operand that has it
    (O1, M4).

    Args:
        ctx: The context of the op.
        terms: One letter for each dimension of each operand that is multiplied, by the index of the operand.
        result: The letters of the result; all others are summed over.
    """
    places: dict[str, list[tuple[int, int]]] = {}
    for operand, term in terms.items():
        for dim, letter in enumerate(term):
            if ctx.inputs[operand][dim].n > 1:
                places.setdefault(letter, []).append((operand, dim))
    axes = {letter: ctx.inputs[where[0][0]][where[0][1]] for letter, where in places.items()}
    for letter, where in places.items():
        for operand, dim in where[1:]:
            ctx.unify(axes[letter], ctx.inputs[operand][dim])
    sinks = tuple(Sink(w[0][0], (w[0][1],), (axes[letter],)) for letter, w in places.items() if letter not in result)
    learned = [axes[letter] for letter, w in places.items() if _is_learned(ctx, letter in result, w)]
    return Relation([[axes.get(letter, Fixed(1)) for letter in result]], sinks, learned=tuple(learned))


def _is_learned(ctx: Context, kept: bool, places: list[tuple[int, int]]) -> bool:  # noqa: FBT001
    return kept and len(places) == 1 and any(ctx.learned[places[0][0] : places[0][0] + 1])
