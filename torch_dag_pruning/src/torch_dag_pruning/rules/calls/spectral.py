"""Axis rules of Fourier transforms and of the two real parts of complex numbers."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch_dag_pruning.axes import Fixed
from torch_dag_pruning.axes.relation import Context, Relation
from torch_dag_pruning.rules.calls.declaration import FunctionRule, argument, function_rule
from torch_dag_pruning.rules.touching import touches


def _transformed(ctx: Context, default: Any) -> Relation:
    """Freeze the transformed dimensions; the others pass, channels among them."""
    rank = len(ctx.inputs[0])
    sizes, dim = argument(ctx, 1, "s"), argument(ctx, 2, "dim", default)
    if dim is None:
        dim = range(rank) if sizes is None else range(-len(sizes), 0)
    return touches(ctx, [dim] if isinstance(dim, int) else dim)


TRANSFORMS = (
    FunctionRule(("fft.fft", "fft.ifft", "fft.rfft", "fft.irfft", "fft.hfft", "fft.ihfft"),
                 partial(_transformed, default=-1)),
    FunctionRule(("fft.fft2", "fft.ifft2", "fft.rfft2", "fft.irfft2"), partial(_transformed, default=(-2, -1))),
    FunctionRule(("fft.fftn", "fft.ifftn", "fft.rfftn", "fft.irfftn"), partial(_transformed, default=None)),
)  # fmt: skip


@function_rule("fft.fftshift", "fft.ifftshift")
def shifted(ctx: Context) -> Relation:
    """Freeze the shifted dimensions, all if none are given."""
    dim = argument(ctx, 1, "dim")
    return touches(ctx, range(len(ctx.inputs[0])) if dim is None else [dim] if isinstance(dim, int) else dim)


@function_rule("torch.view_as_complex")
def view_as_complex(ctx: Context) -> Relation:
    """Freeze the last dimension, which holds the real and the imaginary part."""
    ctx.freeze(ctx.inputs[0][-1:], "real and imaginary part")
    return Relation([list(ctx.inputs[0][:-1])])


@function_rule("torch.view_as_real")
def view_as_real(ctx: Context) -> Relation:
    """Append a fixed dimension for the real and the imaginary part."""
    return Relation([[*ctx.inputs[0], Fixed(2, ctx.cause("real and imaginary part"))]])
