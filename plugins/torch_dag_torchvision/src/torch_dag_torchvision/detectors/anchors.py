"""The anchors of a detector: constants, since the sizes of its feature maps are fixed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from torch_dag_torchvision.detectors.images import Images


def anchors_of(generator: Any, images: Images, features: Sequence[Tensor]) -> tuple[Tensor, tuple[int, ...]]:
    """Return the anchors (anchors, 4) of any one image, and how many of them each feature map has.

    Args:
        generator: ``AnchorGenerator`` or ``DefaultBoxGenerator`` of torchvision.
        images: What the network saw.
        features: The feature maps that the anchors belong to.
    """
    from torchvision.models.detection.image_list import ImageList

    (anchors,) = generator(ImageList(images.batch, [images.size]), features)
    places = (int(feature.shape[-2]) * int(feature.shape[-1]) for feature in features)
    per_place = generator.num_anchors_per_location()
    return anchors, tuple(count * each for count, each in zip(places, per_place, strict=True))
