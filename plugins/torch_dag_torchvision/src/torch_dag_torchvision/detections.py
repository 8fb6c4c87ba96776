"""What a detector's graph returns, and the form that torchvision gives it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

FIELDS = ("boxes", "scores", "labels", "count")
"""What is found: (images, limit, 4), (images, limit), (images, limit), and how many there are of each, (images,)."""


def as_list(found: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Return what torchvision's detectors return: for each image a dict of its boxes, scores and labels.

    Args:
        found: What the graph of a detector returned.
    """
    fields = FIELDS[:-1]
    return [
        {name: found[name][image][:count] for name in fields} for image, count in enumerate(found["count"].tolist())
    ]
