"""The images that a detector is given, and what its network sees of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

from torch_dag_core.errors import TraceError

Size = tuple[int, int]
"""Height and width in pixels."""


@dataclass(frozen=True)
class Images:
    """A batch of images of one size, ready for the network.

    Attributes:
        batch: (images, channels, height, width), normalised, resized, and padded with zeros on the right and below.
        size: What of it is image.
        original: Size of the images that were given.
    """

    batch: Tensor
    size: Size
    original: Size


def prepared(detector: Any, images: Any, targets: Any) -> Images:
    """Do to a batch what torchvision's ``GeneralizedRCNNTransform`` does to each of its images.

    Args:
        detector: One of torchvision's, whose ``transform`` says what to do.
        images: (images, channels, height, width), with values from 0 to 1.
        targets: What to learn, which is refused.

    Raises:
        TraceError: the detector is in training mode, or is given targets or a list of images.
    """
    name = type(detector).__name__
    if detector.training or targets is not None:
        message = f'the losses of {name} depend on the data of its targets; pass modes="eval" and images alone'
        raise TraceError(message)
    if not isinstance(images, Tensor) or images.dim() != 4:
        message = (
            f"{name} becomes a graph for a batch of images of one size: give one tensor (images, channels, height, "
            "width) as example input, not a list of images"
        )
        raise TraceError(message)
    transform = detector.transform
    original = _size(images)
    resized = _resized(transform, transform.normalize(images))
    return Images(_padded(resized, transform.size_divisible), _size(resized), original)


def _size(images: Tensor) -> Size:
    return int(images.shape[-2]), int(images.shape[-1])


def _resized(transform: Any, images: Tensor) -> Tensor:
    if transform.fixed_size is not None:
        width, height = transform.fixed_size
        return functional.interpolate(images, (height, width), mode="bilinear", align_corners=False)
    size = _size(images)
    factor = min(transform.min_size[-1] / min(size), transform.max_size / max(size))
    return functional.interpolate(
        images, scale_factor=factor, mode="bilinear", recompute_scale_factor=True, align_corners=False
    )


def _padded(images: Tensor, divisor: int) -> Tensor:
    height, width = (math.ceil(size / divisor) * divisor - size for size in _size(images))
    return functional.pad(images, (0, width, 0, height)) if height or width else images
