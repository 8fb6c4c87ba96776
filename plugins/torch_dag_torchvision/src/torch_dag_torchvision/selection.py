"""Which of many scored boxes are kept: score threshold, top candidates, non-maximum suppression.

How many are kept depends on the data, so results are padded to a fixed number and come with a count. The function is
registered with torch as an operator of its own: `torch.compile` and `torch.export` take it as one call, and it runs
without data for its shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

_SCHEMA = (
    "(Tensor boxes, Tensor scores, int[] levels, float threshold, int candidates, bool by_class, float min_size,"
    " float overlap, int limit) -> (Tensor, Tensor)"
)


def _select(  # noqa: PLR0913, PLR0917
    boxes: Tensor, scores: Tensor, levels: Sequence[int], threshold: float, candidates: int, by_class: bool,  # noqa: FBT001
    min_size: float, overlap: float, limit: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return which boxes are kept in each image.

    Args:
        boxes: (images, places, classes or 1, 4), as corners ``x1, y1, x2, y2``.
        scores: (images, places, classes).
        levels: How many of the places each level of a pyramid has; they add up to all places.
        threshold: Boxes are kept whose score exceeds it.
        candidates: How many boxes of the highest scores take part in each group; 0 stands for all.
        by_class: Whether the classes are the groups for ``candidates``; otherwise the levels are.
        min_size: Boxes that are narrower or lower take no part; 0 stands for no limit.
        overlap: Of two boxes of one class that overlap by a larger intersection over union, the higher score stays.
        limit: How many boxes are kept at most, by score.

    Returns:
        Positions in the flattened (places, classes), (images, limit), best first and zeros after the last, and how
        many there are, (images,).
    """
    kept = [_of_image(*image, levels, threshold, candidates, by_class, min_size, overlap)[:limit]
            for image in zip(boxes, scores, strict=True)]  # fmt: skip
    positions = scores.new_zeros((len(scores), limit), dtype=torch.int64)
    for row, found in zip(positions, kept, strict=True):
        row[: len(found)] = found
    return positions, torch.tensor([len(found) for found in kept], dtype=torch.int64, device=scores.device)


def _of_image(  # noqa: PLR0913, PLR0917
    boxes: Tensor, scores: Tensor, levels: Sequence[int], threshold: float, candidates: int, by_class: bool,  # noqa: FBT001
    min_size: float, overlap: float,
) -> Tensor:  # fmt: skip
    from torchvision.ops import batched_nms, remove_small_boxes

    classes = scores.shape[-1]
    flat = scores.flatten()
    found = torch.cat([_best(flat, group, threshold, candidates) for group in _groups(scores, levels, by_class)])
    corners = boxes.expand(-1, classes, -1).reshape(-1, 4)[found]
    if min_size:
        large = remove_small_boxes(corners, min_size)
        found, corners = found[large], corners[large]
    kept: Tensor = batched_nms(corners, flat[found], found % classes, overlap)
    return found[kept]


def _groups(scores: Tensor, levels: Sequence[int], by_class: bool) -> Iterator[Tensor]:  # noqa: FBT001
    """Yield the positions of each group in the flattened scores."""
    places = torch.arange(scores.numel(), device=scores.device).view(scores.shape)
    yield from places.unbind(1) if by_class else (level.flatten() for level in torch.split(places, list(levels)))


def _best(scores: Tensor, group: Tensor, threshold: float, candidates: int) -> Tensor:
    above = group[scores[group] > threshold]
    if not candidates:
        return above
    return above[scores[above].topk(min(candidates, len(above))).indices]


select_boxes = torch.library.custom_op("torch_dag_torchvision::select_boxes", _select, mutates_args=(), schema=_SCHEMA)


@select_boxes.register_fake
def _without_data(  # noqa: PLR0913, PLR0917
    boxes: Tensor, scores: Tensor, levels: Sequence[int], threshold: float, candidates: int, by_class: bool,  # noqa: FBT001
    min_size: float, overlap: float, limit: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    del boxes, levels, threshold, candidates, by_class, min_size, overlap
    positions = scores.new_empty((scores.shape[0], limit), dtype=torch.int64)
    return positions, positions.new_empty((scores.shape[0],))
