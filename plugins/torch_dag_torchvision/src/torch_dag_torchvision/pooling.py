"""Features of regions, each pooled from its own level of a pyramid.

How many regions a level has depends on the data; the result does not. So, as in `selection`, the function is registered
with torch as an operator of its own, with a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_SCHEMA = "(Tensor regions, Tensor level, Tensor[] features, int[] size, float[] scales, int sampling_ratio) -> Tensor"


def _pool(
    regions: Tensor, level: Tensor, features: Sequence[Tensor], size: Sequence[int], scales: Sequence[float],
    sampling_ratio: int,
) -> Tensor:  # fmt: skip
    """Return features (regions, channels, height, width).

    Args:
        regions: (regions, 5), the number of the image and the corners of the box in pixels of the image.
        level: (regions,), the index of the feature map to pool from.
        features: One map (images, channels, height, width) for each level.
        size: (height, width) of the pooled features.
        scales: Size of each map relative to the image.
        sampling_ratio: See ``torchvision.ops.roi_align``.
    """
    from torchvision.ops import roi_align

    pooled = features[0].new_zeros((len(regions), features[0].shape[1], *size))
    for index, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        (own,) = torch.where(level == index)
        found = roi_align(feature, regions[own], list(size), scale, sampling_ratio)
        pooled = pooled.index_put((own,), found.to(pooled.dtype))
    return pooled


pool_regions = torch.library.custom_op("torch_dag_torchvision::pool_regions", _pool, mutates_args=(), schema=_SCHEMA)


@pool_regions.register_fake
def _without_data(
    regions: Tensor, level: Tensor, features: Sequence[Tensor], size: Sequence[int], scales: Sequence[float],
    sampling_ratio: int,
) -> Tensor:  # fmt: skip
    del level, scales, sampling_ratio
    return features[0].new_empty((regions.shape[0], features[0].shape[1], *size))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    del output
    regions, level, features, *ctx.settings = inputs
    ctx.save_for_backward(regions, level, *features)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    """Return the gradients of the features; as in torchvision, regions have none."""
    regions, level, *features = ctx.saved_tensors
    with torch.enable_grad():
        features = [feature.detach().requires_grad_() for feature in features]
        pooled = _pool(regions, level, features, *ctx.settings)
    return None, None, list(torch.autograd.grad(pooled, features, gradient)), None, None, None


pool_regions.register_autograd(_backward, setup_context=_keep)
