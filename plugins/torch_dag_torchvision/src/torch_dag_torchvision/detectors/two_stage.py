"""Faster R-CNN: one op proposes regions, one pools their features, one decides what is in them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from torch_dag_core.plugins.registry import AtomicSpec
from torch_dag_torchvision.detections import FIELDS
from torch_dag_torchvision.detectors.anchors import anchors_of
from torch_dag_torchvision.detectors.features import features_of
from torch_dag_torchvision.detectors.images import Images, Size, prepared
from torch_dag_torchvision.ops.regions import Proposals, PyramidRoIAlign, RegionDetections

_MIN_SIDE = 1e-2  # a constant of torchvision's RoIHeads


def faster_rcnn(detector: Any, images: Tensor, targets: object = None) -> dict[str, Tensor]:
    """Detect as ``FasterRCNN`` does (arXiv:1506.01497)."""
    seen = prepared(detector, images, targets)
    features = features_of(detector, seen)
    proposals, count = _proposals(detector.rpn, seen, list(features.values()))
    heads = detector.roi_heads
    pooled = _pooled(heads.box_roi_pool, proposals, features, seen.size)
    logits, codes = heads.box_predictor(heads.box_head(pooled))
    find = RegionDetections(
        image_size=seen.size, original_size=seen.original, threshold=heads.score_thresh, min_size=_MIN_SIDE,
        overlap=heads.nms_thresh, limit=heads.detections_per_img, weights=tuple(map(float, heads.box_coder.weights)),
        largest=heads.box_coder.bbox_xform_clip,
    )  # fmt: skip
    return dict(zip(FIELDS, find(logits, codes, proposals, count), strict=True))


def _proposals(rpn: Any, images: Images, features: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return boxes (images, limit, 4) and how many of them are meant (images,)."""
    objectness, codes = rpn.head(features)
    anchors, levels = anchors_of(rpn.anchor_generator, images, features)
    candidates = rpn.pre_nms_top_n()
    propose = Proposals(
        levels=levels, image_size=images.size, threshold=rpn.score_thresh, candidates=candidates,
        min_size=rpn.min_size, overlap=rpn.nms_thresh,
        limit=min(rpn.post_nms_top_n(), sum(min(candidates, level) for level in levels)),
        weights=tuple(rpn.box_coder.weights), largest=rpn.box_coder.bbox_xform_clip,
    )  # fmt: skip
    scores = _of_anchors(objectness, 1).flatten(1)
    boxes, count = propose(scores, _of_anchors(codes, 4), anchors)
    return boxes, count


def _of_anchors(maps: list[Tensor], width: int) -> Tensor:
    """Return (images, anchors, width) of maps (images, anchors * width, height, width of the map)."""
    return torch.cat([torch.unflatten(one, 1, (-1, width)).permute(0, 3, 4, 1, 2).flatten(1, 3) for one in maps], 1)


def _pooled(pool: Any, proposals: Tensor, features: Mapping[str, Tensor], size: Size) -> Tensor:
    """Pool the features of the proposals as a ``MultiScaleRoIAlign`` does."""
    read = [feature for name, feature in features.items() if name in pool.featmap_names]
    scales = tuple(pool.scales or (_scale(feature, size) for feature in read))
    align = PyramidRoIAlign(pool.output_size, scales, pool.sampling_ratio, pool.canonical_scale, pool.canonical_level)
    pooled: Tensor = align(proposals, *read)
    return pooled


def _scale(feature: Tensor, size: Size) -> float:
    """Return the power of two next to the size of a feature map relative to the image."""
    return float(2.0 ** round(math.log2(int(feature.shape[-2]) / size[0])))


FASTER_RCNN = AtomicSpec(target="torchvision.models.detection.faster_rcnn.FasterRCNN", trace_as=faster_rcnn)
