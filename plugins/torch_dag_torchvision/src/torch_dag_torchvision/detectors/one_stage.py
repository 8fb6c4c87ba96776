"""SSD, RetinaNet and FCOS, up to what their heads say of each anchor, and one op for the rest."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from torch_dag_core.plugins.registry import AtomicSpec
from torch_dag_torchvision.detections import FIELDS
from torch_dag_torchvision.detectors.anchors import anchors_of
from torch_dag_torchvision.detectors.features import features_of
from torch_dag_torchvision.detectors.images import Images, prepared
from torch_dag_torchvision.ops.dense import DenseDetections

_DETECTION = "torchvision.models.detection"


def ssd(detector: Any, images: Tensor, targets: object = None) -> dict[str, Tensor]:
    """Detect as ``SSD`` does (arXiv:1512.02325)."""
    return _detect(detector, prepared(detector, images, targets), by_class=True, scoring="softmax")


def retina_net(detector: Any, images: Tensor, targets: object = None) -> dict[str, Tensor]:
    """Detect as ``RetinaNet`` does (arXiv:1708.02002)."""
    return _detect(detector, prepared(detector, images, targets), by_class=False, scoring="sigmoid")


def fcos(detector: Any, images: Tensor, targets: object = None) -> dict[str, Tensor]:
    """Detect as ``FCOS`` does (arXiv:1904.01355)."""
    return _detect(detector, prepared(detector, images, targets), by_class=False, scoring="centred")


def _detect(detector: Any, images: Images, *, by_class: bool, scoring: str) -> dict[str, Tensor]:
    features = list(features_of(detector, images).values())
    said = detector.head(features)
    anchors, levels = anchors_of(detector.anchor_generator, images, features)
    coder = detector.box_coder
    boxes = {} if scoring == "centred" else {"weights": tuple(coder.weights), "largest": coder.bbox_xform_clip}
    find = DenseDetections(
        levels=levels, image_size=images.size, original_size=images.original, threshold=detector.score_thresh,
        candidates=detector.topk_candidates, overlap=detector.nms_thresh, limit=detector.detections_per_img,
        by_class=by_class, scoring=scoring, **boxes,
    )  # fmt: skip
    centredness = (said["bbox_ctrness"],) if scoring == "centred" else ()
    found = find(said["bbox_regression"], said["cls_logits"], anchors, *centredness)
    return dict(zip(FIELDS, found, strict=True))


ONE_STAGE = (
    AtomicSpec(target=f"{_DETECTION}.ssd.SSD", trace_as=ssd),
    AtomicSpec(target=f"{_DETECTION}.retinanet.RetinaNet", trace_as=retina_net),
    AtomicSpec(target=f"{_DETECTION}.fcos.FCOS", trace_as=fcos),
)
