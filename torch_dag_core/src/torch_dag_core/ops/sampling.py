"""Resampling of spatial dimensions, and TensorFlow's 'same' padding."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from torch_dag_core.graph.op import Op
from torch_dag_core.graph.values import Size, resolve
from torch_dag_core.ops.flops import Parameters, Shapes, free, numel, per_input
from torch_dag_core.plugins.declarations import declare, op

_TAPS = {"nearest": 0, "nearest-exact": 0, "linear": 2, "bilinear": 4, "trilinear": 8, "bicubic": 16}


def interpolation(module: Any, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return 2 FLOPs per element read; NotImplemented with anti-aliasing, where that number is unknown."""
    if module.mode == "area":
        return per_input(module, inputs, outputs, parameters)
    taps = None if getattr(module, "antialias", False) else _TAPS.get(module.mode)
    return NotImplemented if taps is None else 2 * taps * numel(outputs[0])


def grid_sampling(module: Any, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return 2 FLOPs per element read: the neighbours of each sampled point."""
    del inputs, parameters
    taps = {"nearest": 0, "bilinear": 2 ** (len(outputs[0]) - 2), "bicubic": 16}.get(module.mode)
    return NotImplemented if taps is None else 2 * taps * numel(outputs[0])


@op("core.interpolate", flops=interpolation)
class Interpolate(Op):
    """Resize the spatial dimensions."""

    size: int | tuple[int | Size, ...] | Size | None = None
    scale_factor: float | tuple[float, ...] | None = None
    mode: str = "nearest"
    align_corners: bool | None = None
    recompute_scale_factor: bool | None = None
    antialias: bool = False

    def forward(self, x: Tensor, *like: Tensor) -> Tensor:
        """Return x (batch, channels, *spatial) resized to ``size``, or by ``scale_factor``."""
        return functional.interpolate(
            x, resolve(self.size, (x, *like)), self.scale_factor, self.mode,
            self.align_corners, self.recompute_scale_factor, self.antialias,
        )  # fmt: skip


@op("core.grid_sample", flops=grid_sampling)
class GridSample(Op):
    """Sample a tensor at computed positions."""

    mode: str = "bilinear"
    padding_mode: str = "zeros"
    align_corners: bool | None = None

    def forward(self, x: Tensor, grid: Tensor) -> Tensor:
        """Sample x (batch, channels, *spatial) at ``grid`` (batch, *out, dims), with coordinates in [-1, 1]."""
        return functional.grid_sample(x, grid, self.mode, self.padding_mode, self.align_corners)


def same_pad(
    x: Tensor, kernel_size: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...], value: float
) -> Tensor:
    """Pad x (batch, channels, height, width) so that a window of this size gives ceil(input / stride) positions."""
    pads: list[int] = []
    sizes = zip(x.shape[-2:], kernel_size, stride, dilation, strict=True)
    for size, kernel, step, spread in reversed(list(sizes)):
        total = max((-(size // -step) - 1) * step + (kernel - 1) * spread + 1 - size, 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads, value=value)


@op("core.same_pad", flops=free)
class SamePad(Op):
    """Pad as TensorFlow's 'same' does, so that a window of this size gives ceil(input / stride) positions."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    value: float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Return x (batch, channels, height, width), padded according to its height and width."""
        return same_pad(x, self.kernel_size, self.stride, self.dilation, self.value)


MODULES = (
    declare("core.upsample", nn.Upsample, flops=interpolation),
    declare("core.upsampling_nearest2d", nn.UpsamplingNearest2d, flops=interpolation),
    declare("core.upsampling_bilinear2d", nn.UpsamplingBilinear2d, flops=interpolation),
)
