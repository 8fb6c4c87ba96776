"""Models to export, each with the graph of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

import torch_dag_core as td

_PATH = Path(__file__).parents[2] / "core" / "plugins" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("core_plugins_conftest", _PATH)
_core = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_core)
site = _core.site


class ConvNet(nn.Module):
    """A convolutional net with dropout, a skip connection and a size that follows the input."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.block = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.scale = nn.Parameter(torch.full((8, 1, 1), 0.5))
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.scale * self.block(x)
        return self.head(self.drop(x.mean((2, 3)).flatten(1)))


class TwoOutputs(nn.Module):
    """Two inputs, and outputs in a dictionary with a list inside."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 6)
        self.left, self.right = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x, ids):
        both = self.left(x) + self.table(ids)
        return {"logits": self.right(both), "features": [both, both.tanh()]}


def timm_model(name, **options):
    timm = pytest.importorskip("timm")
    size = options.get("img_size", 32)
    return timm.create_model(name, num_classes=7, **options), (torch.randn(2, 3, size, size),)


def pruned(keep, name, **options):
    tdp = pytest.importorskip("torch_dag_pruning")
    model, inputs = timm_model(name, **options)
    dag = td.build_from_unstructured_module(model.eval(), inputs)
    return tdp.OneShotChannelPruning(dag, None, keep_flops=keep).finalize(), inputs


MODELS = {
    "conv_net": lambda: (ConvNet(), (torch.randn(2, 3, 8, 8),)),
    "two_outputs": lambda: (TwoOutputs(), (torch.randn(2, 4), torch.tensor([1, 5]))),
    "resnet18": lambda: timm_model("resnet18"),
    "vit_tiny": lambda: timm_model("vit_tiny_patch16_224", img_size=32, depth=2),
    "mobilenetv3": lambda: timm_model("mobilenetv3_small_050"),
    "pruned_resnet18": lambda: pruned(0.4, "resnet18"),
    "pruned_vit_tiny": lambda: pruned(0.6, "vit_tiny_patch16_224", img_size=32, depth=2),
}
_BUILT = {}


@pytest.fixture(params=MODELS)
def named_graph(request):
    """Return the name of a model, its graph with random batch norm statistics, and inputs."""
    if request.param not in _BUILT:
        torch.manual_seed(0)
        model, inputs = MODELS[request.param]()
        dag = model if isinstance(model, td.DagModule) else td.build_from_unstructured_module(model.eval(), inputs)
        for module in dag.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.normal_(module.running_mean, std=0.1)
        _BUILT[request.param] = dag, inputs
    return request.param, *_BUILT[request.param]


@pytest.fixture
def small():
    """Return the graph of the small convolutional net."""
    torch.manual_seed(0)
    return td.build_from_unstructured_module(ConvNet().eval(), torch.randn(2, 3, 8, 8))
