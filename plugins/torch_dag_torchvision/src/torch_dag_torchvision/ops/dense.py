"""Detections of one-stage detectors, which score and shift every anchor: SSD, RetinaNet, FCOS."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from torch_dag_core.graph.op import Op
from torch_dag_core.ops.flops import Parameters, Shapes, numel
from torch_dag_core.plugins.declarations import op
from torch_dag_torchvision.boxes import clip, decode, decode_distances, pick, resize
from torch_dag_torchvision.selection import select_boxes


def _scoring(module: Any, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return 5 FLOPs for each score, as of a softmax, and 20 for each code of a box; selection is not counted."""
    del module, outputs, parameters
    return 5 * numel(inputs[1]) + 20 * numel(inputs[0])


def _examples() -> list[tuple[Op, tuple[Tensor, ...]]]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    anchors = torch.cat((random(12, 2) * 20, 20 + random(12, 2) * 20), -1)
    sizes: dict[str, Any] = {"image_size": (40, 40), "original_size": (80, 60), "overlap": 0.5}
    softmax = DenseDetections(levels=(12,), threshold=0.3, candidates=6, limit=8, by_class=True, **sizes)
    sigmoid = DenseDetections(levels=(8, 4), threshold=0.6, candidates=6, limit=8, scoring="sigmoid", **sizes)
    distances = DenseDetections(levels=(8, 4), threshold=0.6, candidates=6, limit=8, scoring="centred", **sizes)
    given = random(2, 12, 4), random(2, 12, 3), anchors
    return [(softmax, given), (sigmoid, given), (distances, (*given, random(2, 12, 1)))]


@op("torchvision.dense_detections", flops=_scoring, examples=_examples)
class DenseDetections(Op):
    """The boxes that a one-stage detector finds: decoded, clipped, filtered by score and overlap.

    Attributes:
        levels: How many anchors each feature map has.
        image_size: (height, width) of the images that the network saw, to which boxes are clipped.
        original_size: (height, width) of the images that were given, in whose pixels boxes are returned.
        threshold: Boxes are kept whose score exceeds it.
        candidates: How many boxes of the highest scores take part in each group.
        overlap: Largest intersection over union of two kept boxes of one class.
        limit: How many boxes of an image are kept at most, and to how many the results are padded.
        by_class: Whether the groups are the classes; otherwise they are the levels.
        scoring: ``softmax`` over classes, the first of which is the background; ``sigmoid`` of each class; or
            ``centred``, the geometric mean of that and the sigmoid of the centredness.
        weights: What the codes of boxes are divided by, see `decode`; unused where boxes are distances.
        largest: Upper bound of the logarithms among the codes.
    """

    levels: tuple[int, ...]
    image_size: tuple[int, int]
    original_size: tuple[int, int]
    threshold: float
    candidates: int
    overlap: float
    limit: int
    by_class: bool = False
    scoring: str = "softmax"
    weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    largest: float = 4.135166556742356  # log(1000 / 16)

    def forward(
        self, codes: Tensor, logits: Tensor, anchors: Tensor, centredness: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return boxes (images, limit, 4), scores and labels (images, limit), and how many there are (images,).

        Args:
            codes: (images, anchors, 4).
            logits: (images, anchors, classes).
            anchors: (anchors, 4).
            centredness: (images, anchors, 1), logits; only where ``scoring`` is ``centred``.
        """
        scores = self._scores(logits, centredness)
        boxes = clip(self._decoded(codes, anchors), self.image_size).unsqueeze(2)
        found = select_boxes(
            boxes, scores, self.levels, self.threshold, self.candidates, self.by_class, 0.0, self.overlap, self.limit
        )
        kept, score, label = pick(boxes, scores, *found)
        kept = resize(kept, self.image_size, self.original_size)
        return kept, score, label + (label >= 0) if self.scoring == "softmax" else label, found[1]

    def _decoded(self, codes: Tensor, anchors: Tensor) -> Tensor:
        if self.scoring == "centred":
            return decode_distances(codes, anchors)
        return decode(codes, anchors, self.weights, self.largest)

    def _scores(self, logits: Tensor, centredness: Tensor | None) -> Tensor:
        if self.scoring == "softmax":
            return logits.softmax(-1)[..., 1:]
        scores = logits.sigmoid()
        return scores if centredness is None else (scores * centredness.sigmoid()).sqrt()
