"""The feature maps of a detector's backbone."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from torch_dag_torchvision.detectors.images import Images


def features_of(detector: Any, images: Images) -> dict[str, Tensor]:
    """Return the feature maps (images, channels, height, width) by name, finest first."""
    features = detector.backbone(images.batch)
    return {"0": features} if isinstance(features, Tensor) else dict(features)
