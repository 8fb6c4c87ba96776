"""Normalizers of pooling and resampling functions, most of which become modules of torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from torch import nn

from torch_dag_core.conversion.builder import Call, Operand, Value, draft, frozen
from torch_dag_core.conversion.normalizers.declaration import normalizes
from torch_dag_core.ops.layout import UnfoldDim
from torch_dag_core.ops.sampling import GridSample, Interpolate

_POOLS: dict[str, Callable[..., nn.Module]] = {
    f"{kind}{rank}d": getattr(nn, f"{name}{rank}d")
    for kind, name in (
        ("max_pool", "MaxPool"), ("avg_pool", "AvgPool"), ("adaptive_avg_pool", "AdaptiveAvgPool"),
        ("adaptive_max_pool", "AdaptiveMaxPool"), ("lp_pool", "LPPool"),
    )
    for rank in (1, 2, 3)
}  # fmt: skip


@normalizes(*(f"{name}_with_indices" for name in _POOLS if "max_pool" in name))
def pool_with_indices(call: Call, input: Value, *args: Operand, **kwargs: Operand) -> Value:
    """Emit a max pooling module that also returns the positions of the maxima."""
    names = (
        ["output_size"] if "adaptive" in call.name else ["kernel_size", "stride", "padding", "dilation", "ceil_mode"]
    )
    kwargs |= dict(zip(names, args, strict=False))
    return call.emit(_POOLS[call.name.removesuffix("_with_indices")](**{**kwargs, "return_indices": True}), input)


@normalizes(*_POOLS)
def pool(call: Call, input: Value, *args: Operand, **kwargs: Operand) -> Value:
    """Emit the pooling module of a function."""
    kind = _POOLS[call.name]
    if call.name == "max_pool1d" or call.name.startswith("max_pool"):
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
        kwargs |= dict(zip(names, args, strict=False))
        return call.emit(kind(**kwargs), input)
    parameters = inspect.signature(kind).parameters
    return call.emit(kind(**dict(zip(parameters, args, strict=False)), **kwargs), input)


_MODULES: dict[str, Callable[..., nn.Module]] = {
    "pixel_shuffle": nn.PixelShuffle, "pixel_unshuffle": nn.PixelUnshuffle, "unfold": nn.Unfold, "fold": nn.Fold,
}  # fmt: skip
"""Modules whose constructor takes the arguments of the function."""


@normalizes("interpolate", "upsample")
def interpolate(
    call: Call, input: Value, size: Operand = None, scale_factor: Operand = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> Value:  # fmt: skip
    """Emit `Interpolate`; its size may be read off the inputs."""
    op = draft(
        Interpolate, frozen(size), frozen(scale_factor), mode, align_corners, recompute_scale_factor, antialias
    )  # fmt: skip
    return call.emit(op, input)


@normalizes("grid_sample")
def grid_sample(
    call: Call, input: Value, grid: Value, mode: str = "bilinear", padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Value:  # fmt: skip
    """Emit `GridSample`."""
    return call.emit(GridSample(mode, padding_mode, align_corners), input, grid)


@normalizes("pixel_shuffle", "pixel_unshuffle")
def pixel_shuffle(call: Call, input: Value, factor: int) -> Value:
    """Emit the module of the function."""
    return call.emit(_MODULES[call.name](factor), input)


@normalizes("channel_shuffle")
def channel_shuffle(call: Call, input: Value, groups: int) -> Value:
    """Emit `nn.ChannelShuffle`."""
    return call.emit(nn.ChannelShuffle(groups), input)


@normalizes("unfold")
def unfold(call: Call, input: Value, *args: Operand, **kwargs: Operand) -> Value:
    """Emit `nn.Unfold` for ``functional.unfold``, `UnfoldDim` for ``Tensor.unfold``."""
    if len(args) == 3 and len(input.shape or ()) == len(call.shape or ()) - 1:
        return call.emit(draft(UnfoldDim, *args), input)
    return call.emit(_MODULES["unfold"](*args, **kwargs), input)


@normalizes("fold")
def fold(call: Call, input: Value, *args: Operand, **kwargs: Operand) -> Value:
    """Emit `nn.Fold`."""
    return call.emit(_MODULES["fold"](*args, **kwargs), input)
