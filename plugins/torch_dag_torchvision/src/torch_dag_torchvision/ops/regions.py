"""Proposals and detections of two-stage detectors, and the pooling of features between them (arXiv:1506.01497)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from torch_dag_core.graph.op import Op
from torch_dag_core.ops.flops import Parameters, Shapes, numel
from torch_dag_core.plugins.declarations import op
from torch_dag_torchvision.boxes import clip, decode, pick, resize
from torch_dag_torchvision.pooling import pool_regions
from torch_dag_torchvision.selection import select_boxes


def _scoring(module: Any, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return 5 FLOPs for each score, as of a softmax, and 20 for each code of a box; selection is not counted."""
    del module, outputs, parameters
    return 5 * numel(inputs[0]) + 20 * numel(inputs[1])


def _boxes(generator: torch.Generator, *shape: int) -> Tensor:
    corner, size = torch.rand((2, *shape, 2), generator=generator)
    return torch.cat((corner * 20, 21 + size * 19), -1)


def _proposal_examples() -> list[tuple[Op, tuple[Tensor, ...]]]:
    generator = torch.Generator().manual_seed(0)
    op = Proposals(
        levels=(12, 4), image_size=(40, 40), threshold=0.4, candidates=8, min_size=1e-3, overlap=0.6, limit=6
    )
    scores, codes = torch.randn((2, 16), generator=generator), torch.randn((2, 16, 4), generator=generator)
    return [(op, (scores, codes, _boxes(generator, 16)))]


@op("torchvision.proposals", flops=_scoring, examples=_proposal_examples)
class Proposals(Op):
    """The regions that a region proposal network proposes.

    Attributes:
        levels: How many anchors each feature map has.
        image_size: (height, width) of the images that the network saw, to which boxes are clipped.
        threshold: Least score of a proposal.
        candidates: How many anchors of the highest scores take part in each level.
        min_size: Least width and height of a proposal, in pixels.
        overlap: Largest intersection over union of two proposals of one level.
        limit: How many regions of an image are proposed at most, and to how many the result is padded.
        weights: What the codes of boxes are divided by, see `decode`.
        largest: Upper bound of the logarithms among the codes.
    """

    levels: tuple[int, ...]
    image_size: tuple[int, int]
    threshold: float
    candidates: int
    min_size: float
    overlap: float
    limit: int
    weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    largest: float = math.log(1000.0 / 16)

    def forward(self, objectness: Tensor, codes: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes (images, limit, 4), padded with zeros, and how many there are (images,); without gradients.

        Args:
            objectness: (images, anchors), logits.
            codes: (images, anchors, 4).
            anchors: (anchors, 4).
        """
        objectness, codes = objectness.detach(), codes.detach()
        best = self._best(objectness)
        boxes = decode(codes, anchors, self.weights, self.largest)
        boxes = clip(boxes.gather(1, best[..., None].expand(-1, -1, 4)), self.image_size)
        scores = objectness.gather(1, best).sigmoid()
        # Levels take the place of classes, among which boxes do not suppress one another.
        ranked = [min(self.candidates, anchors) for anchors in self.levels]
        level = torch.cat([torch.full((n,), index, device=scores.device) for index, n in enumerate(ranked)])
        own = level[:, None] == torch.arange(len(ranked), device=scores.device)
        scores = scores.unsqueeze(-1)
        levelled, boxes = scores.where(own & (scores >= self.threshold), -math.inf), boxes.unsqueeze(2)
        found = select_boxes(
            boxes, levelled, (best.shape[1],), -math.inf, 0, False, self.min_size, self.overlap, self.limit  # noqa: FBT003
        )  # fmt: skip
        return pick(boxes, levelled, *found)[0], found[1]

    def _best(self, objectness: Tensor) -> Tensor:
        """Return the anchors of the highest scores in each level, by falling score."""
        found, offset = [], 0
        for scores in torch.split(objectness, list(self.levels), 1):
            found.append(scores.topk(min(self.candidates, scores.shape[1]), 1).indices + offset)
            offset += scores.shape[1]
        return torch.cat(found, 1)


def _pooling(module: Any, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return 8 FLOPs for each bilinear sample, as of a grid of 2 x 2 where the grid follows the region."""
    del inputs, parameters
    return 8 * (module.sampling_ratio if module.sampling_ratio > 0 else 2) ** 2 * numel(outputs[0])


def _pooling_examples() -> list[tuple[Op, tuple[Tensor, ...]]]:
    generator = torch.Generator().manual_seed(0)
    fine, coarse = torch.randn((2, 4, 10, 10), generator=generator), torch.randn((2, 4, 5, 5), generator=generator)
    boxes = _boxes(generator, 2, 3)
    one = PyramidRoIAlign(output_size=(3, 3), scales=(0.25,), sampling_ratio=2)
    two = PyramidRoIAlign(output_size=(3, 2), scales=(0.25, 0.125), sampling_ratio=0, canonical_scale=16)
    return [(one, (boxes, fine)), (two, (boxes, fine, coarse))]


@op("torchvision.pyramid_roi_align", flops=_pooling, examples=_pooling_examples)
class PyramidRoIAlign(Op):
    """Features of regions, each pooled from the level of a pyramid that suits its size (arXiv:1612.03144, eq. 1).

    Attributes:
        output_size: (height, width) of the pooled features.
        scales: Size of each feature map relative to the image.
        sampling_ratio: Samples of a pooled pixel in each direction; by the size of the region where it is not positive.
        canonical_scale: Size in pixels of the regions that are pooled from ``canonical_level``.
        canonical_level: Level of a feature map whose scale is two to the power of minus this.
    """

    output_size: tuple[int, int]
    scales: tuple[float, ...]
    sampling_ratio: int
    canonical_scale: int = 224
    canonical_level: int = 4

    def forward(self, boxes: Tensor, *features: Tensor) -> Tensor:
        """Return the features (images * regions, channels, height, width) of boxes (images, regions, 4)."""
        images = torch.arange(boxes.shape[0], device=boxes.device, dtype=boxes.dtype)
        corners = boxes.flatten(0, 1)
        regions = torch.cat((images.repeat_interleave(boxes.shape[1])[:, None], corners), 1)
        pooled: Tensor = pool_regions(
            regions, self._levels(corners), list(features), self.output_size, self.scales, self.sampling_ratio
        )
        return pooled

    def _levels(self, boxes: Tensor) -> Tensor:
        """Return the index of the feature map for each box (regions, 4)."""
        if len(self.scales) == 1:
            return boxes.new_zeros(len(boxes), dtype=torch.int64)
        x1, y1, x2, y2 = boxes.unbind(-1)
        size = ((x2 - x1) * (y2 - y1)).sqrt()
        level = (self.canonical_level + (size / self.canonical_scale).log2() + 1e-6).floor()
        first, last = (-int(math.log2(scale)) for scale in (self.scales[0], self.scales[-1]))
        return (level.clamp(first, last) - first).to(torch.int64)


def _detection_examples() -> list[tuple[Op, tuple[Tensor, ...]]]:
    generator = torch.Generator().manual_seed(0)
    op = RegionDetections(
        image_size=(40, 40), original_size=(80, 60), threshold=0.2, min_size=1e-2, overlap=0.5, limit=7
    )
    logits, codes = torch.randn((6, 4), generator=generator), torch.randn((6, 16), generator=generator)
    return [(op, (logits, codes, _boxes(generator, 2, 3), torch.tensor([3, 1])))]


@op("torchvision.region_detections", flops=_scoring, examples=_detection_examples)
class RegionDetections(Op):
    """The boxes that a two-stage detector finds in proposed regions.

    Attributes:
        image_size: (height, width) of the images that the network saw, to which boxes are clipped.
        original_size: (height, width) of the images that were given, in whose pixels boxes are returned.
        threshold: Boxes are kept whose score exceeds it.
        min_size: Least width and height of a box, in pixels that the network saw.
        overlap: Largest intersection over union of two kept boxes of one class.
        limit: How many boxes of an image are kept at most, and to how many the results are padded.
        weights: What the codes of boxes are divided by, see `decode`.
        largest: Upper bound of the logarithms among the codes.
    """

    image_size: tuple[int, int]
    original_size: tuple[int, int]
    threshold: float
    min_size: float
    overlap: float
    limit: int
    weights: tuple[float, ...] = (10.0, 10.0, 5.0, 5.0)
    largest: float = math.log(1000.0 / 16)

    def forward(
        self, logits: Tensor, codes: Tensor, proposals: Tensor, count: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return boxes (images, limit, 4), scores and labels (images, limit), and how many there are (images,).

        Args:
            logits: (images * regions, classes), the first of which is the background.
            codes: (images * regions, 4 * classes).
            proposals: (images, regions, 4).
            count: (images,), how many of the regions are meant.
        """
        images, regions = proposals.shape[:2]
        boxes = decode(codes.reshape(images, regions, -1, 4), proposals.unsqueeze(2), self.weights, self.largest)
        boxes = clip(boxes, self.image_size)[:, :, 1:]
        valid = torch.arange(regions, device=count.device) < count[:, None]
        scores = logits.softmax(-1).view(images, regions, -1)[..., 1:].where(valid[..., None], -math.inf)
        found = select_boxes(
            boxes, scores, (regions,), self.threshold, 0, False, self.min_size, self.overlap, self.limit  # noqa: FBT003
        )  # fmt: skip
        kept, score, label = pick(boxes, scores, *found)
        return resize(kept, self.image_size, self.original_size), score, label + (label >= 0), found[1]
