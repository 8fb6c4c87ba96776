"""Arithmetic on boxes, which are corners ``x1, y1, x2, y2`` in the last dimension."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def decode(codes: Tensor, anchors: Tensor, weights: Sequence[float], largest: float) -> Tensor:
    """Move and stretch anchors: the box regression of arXiv:1506.01497, equations (2).

    Args:
        codes: (..., 4), shifts relative to the size of the anchor and logarithms of its stretch.
        anchors: (..., 4), broadcast against the codes.
        weights: What each of the four codes is divided by.
        largest: Upper bound of the logarithms.
    """
    x1, y1, x2, y2 = anchors.to(codes.dtype).unbind(-1)
    width, height = x2 - x1, y2 - y1
    dx, dy, dw, dh = (code / weight for code, weight in zip(codes.unbind(-1), weights, strict=True))
    x = dx * width + (x1 + 0.5 * width)
    y = dy * height + (y1 + 0.5 * height)
    half_width = 0.5 * (dw.clamp(max=largest).exp() * width)
    half_height = 0.5 * (dh.clamp(max=largest).exp() * height)
    return torch.stack((x - half_width, y - half_height, x + half_width, y + half_height), -1)


def decode_distances(codes: Tensor, anchors: Tensor) -> Tensor:
    """Return boxes whose sides lie at given distances from the middle of the anchor (arXiv:1904.01355).

    Args:
        codes: (..., 4), distances to the left, top, right and bottom, relative to the size of the anchor.
        anchors: (..., 4), broadcast against the codes.
    """
    x1, y1, x2, y2 = anchors.to(codes.dtype).unbind(-1)
    x, y = 0.5 * (x1 + x2), 0.5 * (y1 + y2)
    left, top, right, bottom = (codes * torch.stack((x2 - x1, y2 - y1, x2 - x1, y2 - y1), -1)).unbind(-1)
    return torch.stack((x - left, y - top, x + right, y + bottom), -1)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Keep boxes inside an image of ``size`` (height, width)."""
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(-1)
    sides = x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)
    return torch.stack(sides, -1)


def resize(boxes: Tensor, size: tuple[int, int], to: tuple[int, int]) -> Tensor:
    """Scale boxes in an image of ``size`` (height, width) as the image is scaled to another size."""
    vertical, horizontal = to[0] / size[0], to[1] / size[1]
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack((x1 * horizontal, y1 * vertical, x2 * horizontal, y2 * vertical), -1)


def pick(boxes: Tensor, scores: Tensor, positions: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the boxes, scores and classes at the positions that `select_boxes` gave, padded with zeros and class -1.

    Args:
        boxes: (images, places, classes or 1, 4).
        scores: (images, places, classes).
        positions: (images, limit), in the flattened (places, classes).
        count: (images,), how many of the positions are meant.
    """
    classes = scores.shape[-1]
    label, place = positions % classes, positions // classes
    column = place * boxes.shape[2] + (label if boxes.shape[2] > 1 else 0)
    corners = boxes.flatten(1, 2).gather(1, column[..., None].expand(-1, -1, 4))
    valid = torch.arange(positions.shape[1], device=count.device) < count[:, None]
    score = scores.flatten(1).gather(1, positions)
    return corners.where(valid[..., None], 0), score.where(valid, 0), label.where(valid, -1)
