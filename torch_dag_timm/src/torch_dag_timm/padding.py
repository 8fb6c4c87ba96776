"""timm's convolutions and poolings with TensorFlow's 'same' padding, whose amount depends on the image size.

Tracing timm's own code would make a constant of the amount. Here a `SamePad` op, which computes it from the image,
comes before a plain convolution or pooling.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.nn import functional

from torch_dag_core.ops.sampling import SamePad
from torch_dag_core.plugins.registry import AtomicSpec, Examples
from torch_dag_timm.examples import examples
from torch_dag_timm.releases import at_least


def _padded(module: Any, x: Tensor, dilation: Any = (1, 1), value: float = 0.0) -> Tensor:
    window = _pair(module.kernel_size), _pair(module.stride), _pair(dilation)
    padded: Tensor = SamePad(*window, value)(x)
    return padded


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _convolve(module: Any, x: Tensor, weight: Tensor) -> Tensor:
    return functional.conv2d(x, weight, module.bias, module.stride, module.padding, module.dilation, module.groups)


def convolution(module: Any, x: Tensor) -> Tensor:
    """Compute what Conv2dSame does."""
    return _convolve(module, _padded(module, x, module.dilation), module.weight)


def average_pooling(module: Any, x: Tensor) -> Tensor:
    """Compute what AvgPool2dSame does."""
    settings = module.kernel_size, module.stride, module.padding, module.ceil_mode, module.count_include_pad
    return functional.avg_pool2d(_padded(module, x), *settings)


def max_pooling(module: Any, x: Tensor) -> Tensor:
    """Compute what MaxPool2dSame does. Before timm 1.0.30 its padding ignored the dilation."""
    padded = _padded(module, x, module.dilation if at_least(1, 0, 30) else 1, -math.inf)
    settings = module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode
    return functional.max_pool2d(padded, *settings)


def standardized_convolution(module: Any, x: Tensor) -> Tensor:
    """Compute what StdConv2dSame and ScaledStdConv2dSame do (arXiv:1903.10520, arXiv:2101.08692)."""
    scale = (module.gain * module.scale).view(-1) if hasattr(module, "gain") else None
    flat = module.weight.reshape(1, module.out_channels, -1)
    weight = functional.batch_norm(flat, None, None, weight=scale, training=True, momentum=0.0, eps=module.eps)
    padded = _padded(module, x, module.dilation) if module.same_pad else x
    return _convolve(module, padded, weight.reshape_as(module.weight))


_CHANNELS = (4, 6)
_STAND_INS = {
    "timm.layers.conv2d_same.Conv2dSame": (convolution, _CHANNELS),
    "timm.layers.pool2d_same.AvgPool2dSame": (average_pooling, ()),
    "timm.layers.pool2d_same.MaxPool2dSame": (max_pooling, ()),
    "timm.layers.std_conv.StdConv2dSame": (standardized_convolution, _CHANNELS),
    "timm.layers.std_conv.ScaledStdConv2dSame": (standardized_convolution, _CHANNELS),
}


def _examples(target: str, channels: tuple[int, ...]) -> Examples:
    return examples(
        target,
        ((*channels, 3, 2), {}, (2, 4, 8, 8)),
        ((*channels, (3, 2), (2, 1)), {}, (2, 4, 7, 11)),
    )


PADDED = tuple(
    AtomicSpec(target=name, trace_as=function, examples=_examples(name, channels))
    for name, (function, channels) in _STAND_INS.items()
)
