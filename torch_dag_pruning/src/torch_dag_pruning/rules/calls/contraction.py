"""Axis rules of functions that are products of tensors, summed over axes (O1)."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

from torch_dag_pruning.axes.relation import Context, Relation, Sink
from torch_dag_pruning.rules.broadcasting import broadcast
from torch_dag_pruning.rules.calls.declaration import FunctionRule, argument, function_rule
from torch_dag_pruning.rules.contraction import contracted


def _fixed_form(*terms: str, result: str) -> Any:
    """Return the rule of a product with one letter for each dimension of each operand, as in an einsum."""

    def rule(ctx: Context) -> Relation:
        return contracted(ctx, dict(enumerate(map(list, terms))), list(result))

    return rule


def _added_to(*terms: str, result: str) -> Any:
    """Return the rule of a product of the operands 1 and 2 that is added to operand 0, which may broadcast."""

    def rule(ctx: Context) -> Relation:
        relation = contracted(ctx, dict(enumerate(map(list, terms), start=1)), list(result))
        broadcast(ctx, [relation.outputs[0], ctx.inputs[0]])
        return relation

    return rule


PRODUCTS = (
    FunctionRule(("torch.mv",), _fixed_form("ij", "j", result="i")),
    FunctionRule(("torch.dot", "torch.vdot"), _fixed_form("i", "i", result="")),
    FunctionRule(("torch.outer",), _fixed_form("i", "j", result="ij")),
    FunctionRule(("torch.addmv",), _added_to("ij", "j", result="i")),
    FunctionRule(("torch.addr",), _added_to("i", "j", result="ij")),
    FunctionRule(("torch.addmm",), _added_to("ij", "jk", result="ik")),
    FunctionRule(("torch.baddbmm",), _added_to("bij", "bjk", result="bik")),
    FunctionRule(("torch.addbmm",), _added_to("bij", "bjk", result="ik")),
)


@function_rule("torch.inner")
def inner(ctx: Context) -> Relation:
    """Contract the last dimensions of both operands; a scalar operand scales the other."""
    ranks = [len(axes) for axes in ctx.inputs]
    if 0 in ranks:
        return Relation([broadcast(ctx, ctx.inputs)])
    return _over(ctx, [[ranks[0] - 1], [ranks[1] - 1]])


@function_rule("torch.tensordot")
def tensordot(ctx: Context) -> Relation:
    """Contract the given pairs of dimensions; a number stands for the last of the first operand, in order."""
    given = argument(ctx, 2, "dims", 2)
    ranks = [len(axes) for axes in ctx.inputs]
    if isinstance(given, int):
        return _over(ctx, [range(ranks[0] - given, ranks[0]), range(given)])
    pair = [[dims] if isinstance(dims, int) else dims for dims in given]
    return _over(ctx, [[dim % rank for dim in dims] for dims, rank in zip(pair, ranks, strict=True)])


def _over(ctx: Context, summed: Sequence[Sequence[int]]) -> Relation:
    """Contract dimensions ``summed[0]`` of the first operand with ``summed[1]`` of the second, one by one."""
    names = iter(string.ascii_letters)
    terms = [[next(names) for _ in axes] for axes in ctx.inputs]
    for here, there in zip(*summed, strict=True):
        terms[1][there] = terms[0][here]
    kept = [[letter for dim, letter in enumerate(t) if dim not in set(s)] for t, s in zip(terms, summed, strict=True)]
    return contracted(ctx, dict(enumerate(terms)), [*kept[0], *kept[1]])


@function_rule("linalg.vecdot")
def vecdot(ctx: Context) -> Relation:
    """Mask the first operand that is not broadcast along the dimension that is summed over (O1)."""
    axes = broadcast(ctx, ctx.inputs)
    dim = argument(ctx, 2, "dim", -1) % len(axes)
    place = dim - len(axes)
    wide = [index for index, own in enumerate(ctx.inputs) if len(own) >= -place and own[place].n > 1]
    sinks = tuple(Sink(index, (len(ctx.inputs[index]) + place,), (axes[dim],)) for index in wide[:1])
    return Relation([[*axes[:dim], *axes[dim + 1 :]]], sinks)


@function_rule("functional.bilinear")
def bilinear(ctx: Context) -> Relation:
    """Contract the last axes of the first two operands with dimensions 1 and 2 of the third, and mask both (O1)."""
    x, y, (out, first, second), *bias = ctx.inputs
    ctx.unify(x[-1], first)
    ctx.unify(y[-1], second)
    for axes in bias:
        ctx.unify(axes[0], out)
    sinks = (Sink(0, (len(x) - 1,), (first,)), Sink(1, (len(y) - 1,), (second,)))
    return Relation([[*broadcast(ctx, [x[:-1], y[:-1]]), out]], sinks, learned=(out,))
