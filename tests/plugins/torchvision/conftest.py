"""Small detectors with random weights, which find some boxes but not as many as they may."""

import copy

import pytest
import torch
from torchvision.models import detection
from torchvision.ops import MultiScaleRoIAlign

import torch_dag_core as td

SIZES = ((80, 64), (100, 150))
_COMMON = {"weights": None, "weights_backbone": None, "num_classes": 5}
_SMALL = {"min_size": 96, "max_size": 160}
_SSD = {"score_thresh": 0.7, "topk_candidates": 50, "detections_per_img": 300}
_DENSE = {**_SMALL, "score_thresh": 0.85, "topk_candidates": 50, "detections_per_img": 150}
_REGIONS = {"rpn_pre_nms_top_n_test": 60, "rpn_post_nms_top_n_test": 40, "box_score_thresh": 0.3}
SETTINGS = {
    "ssdlite320_mobilenet_v3_large": _SSD,
    "ssd300_vgg16": _SSD,
    "retinanet_resnet50_fpn": _DENSE,
    "retinanet_resnet50_fpn_v2": _DENSE,
    "fcos_resnet50_fpn": {**_DENSE, "score_thresh": 0.6},
    "fasterrcnn_mobilenet_v3_large_320_fpn": {**_SMALL, **_REGIONS},
    "fasterrcnn_resnet50_fpn_v2": {**_SMALL, **_REGIONS},
}
_HEADS = ("head.", "rpn.head", "roi_heads")
_LAYERS = (torch.nn.Conv2d, torch.nn.Linear)


def detector(name, seed=0):
    """Return a detector in evaluation mode whose heads are random enough to tell anchors apart."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(detection, name)(**_COMMON, **SETTINGS[name])
        awaken(model.eval())
    return model


@torch.no_grad()
def awaken(model):
    """Scale norms and heads by a few images, so that features have a variance of one and boxes differ."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    layers = [m for path, m in model.named_modules() if path.startswith(_HEADS) and isinstance(m, _LAYERS)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.train().momentum = None
    hooks = [layer.register_forward_hook(_scaled_once(set())) for layer in layers]
    model(list(torch.rand(4, 3, 96, 96)))
    for hook in hooks:
        hook.remove()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval().momentum = momentum
    for pool in model.modules():
        if isinstance(pool, MultiScaleRoIAlign):
            pool.scales = pool.map_levels = None  # which it keeps from its first call


def _scaled_once(done):
    def scale(layer, inputs, result):
        if layer in done:
            return result
        done.add(layer)
        deviation = result.std()
        layer.weight /= deviation
        if layer.bias is None:
            return result / deviation
        shift = layer.bias.view(-1, *[1] * (result.dim() - 2)).clone()
        layer.bias.zero_()
        return (result - shift) / deviation

    return scale


def images(batch, size, seed=0):
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def found_by(model, batch):
    """Return what a detector itself finds in images of one size."""
    return copy.deepcopy(model)(list(batch))


class Detectors:
    """Detectors, images for them, and their graphs, each of which is made once."""

    small, wide = SIZES
    make, images, found_by = staticmethod(detector), staticmethod(images), staticmethod(found_by)

    def __init__(self):
        self._graphs = {}

    def graph(self, name, size=SIZES[0]):
        if (name, size) not in self._graphs:
            inputs = images(2, size)
            self._graphs[name, size] = td.build_from_unstructured_module(detector(name), inputs, modes="eval")
        return self._graphs[name, size].clone()


@pytest.fixture(scope="session")
def detectors():
    return Detectors()


_SLOW = ("ssd300_vgg16", "retinanet_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2")


@pytest.fixture(params=[pytest.param(n, marks=[pytest.mark.heavy] if n in _SLOW else []) for n in SETTINGS])
def name(request):
    return request.param


@pytest.fixture(params=SIZES, ids=str)
def size(request):
    return request.param
