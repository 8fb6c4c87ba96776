"""Models of torchvision: equal to their source in every mode, and reloaded where nothing of it can be imported."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from functools import lru_cache

import pytest
import torch

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.serialization import save

torchvision = pytest.importorskip("torchvision")
segmentation, video = torchvision.models.segmentation, torchvision.models.video

MODELS = {
    "resnet18": (torchvision.models.resnet18, {}, (3, 64, 64)),
    "googlenet": (torchvision.models.googlenet, {"init_weights": False}, (3, 96, 96)),
    "inception_v3": (torchvision.models.inception_v3, {"init_weights": False}, (3, 299, 299)),
    "shufflenet_v2_x0_5": (torchvision.models.shufflenet_v2_x0_5, {}, (3, 64, 64)),
    "convnext_tiny": (torchvision.models.convnext_tiny, {}, (3, 64, 64)),
    "swin_t": (torchvision.models.swin_t, {}, (3, 64, 64)),
    "vit_b_16": (torchvision.models.vit_b_16, {"image_size": 64}, (3, 64, 64)),
    "fcn_resnet50": (segmentation.fcn_resnet50, {"weights_backbone": None, "aux_loss": True}, (3, 64, 64)),
    "deeplabv3_mobilenet_v3_large": (
        segmentation.deeplabv3_mobilenet_v3_large, {"weights_backbone": None}, (3, 64, 64)
    ),
    "r3d_18": (video.r3d_18, {}, (3, 4, 32, 32)),
}  # fmt: skip
OF_FIXED_SIZE = {"vit_b_16", "swin_t"}
NOT_EXACT = {"vit_b_16": 1e-5}


@lru_cache(maxsize=1)
def converted(name):
    build, options, size = MODELS[name]
    torch.manual_seed(0)
    model = build(weights=None, **options).eval()
    return model, build_from_unstructured_module(model, torch.randn(2, *size)), size


def assert_equal(expected, actual, relative):
    assert type(actual).__name__ == type(expected).__name__ or isinstance(expected, dict)
    if isinstance(expected, torch.Tensor):
        error = (expected - actual).abs().max()
        assert error <= relative * expected.abs().max()
    else:
        keys = expected.keys() if isinstance(expected, dict) else range(len(expected))
        assert keys == (actual.keys() if isinstance(expected, dict) else range(len(actual)))
        for key in keys:
            assert_equal(expected[key], actual[key], relative)


@pytest.fixture(scope="module", params=MODELS)
def name(request):
    return request.param


def test_outputs_are_equal_at_any_batch_size(name):
    model, dag, size = converted(name)
    for batch in (1, 2) if name == "inception_v3" else (1, 2, 5):
        x = torch.randn(batch, *size)
        with torch.no_grad():
            assert_equal(model(x), dag(x), NOT_EXACT.get(name, 0.0))


def test_outputs_are_equal_at_another_image_size(name):
    model, dag, size = converted(name)
    if name in OF_FIXED_SIZE:
        assert "image size is fixed" in dag.input_spec.notes[0]
        return
    x = torch.randn(1, *size[:-2], size[-2] + 13, size[-1] + 32)
    with torch.no_grad():
        assert_equal(model(x), dag(x), NOT_EXACT.get(name, 0.0))


def test_training_is_equal_with_equal_seeds(name):
    model, dag, size = converted(name)
    model, dag, x = copy.deepcopy(model).train(), copy.deepcopy(dag).train(), torch.randn(2, *size)
    torch.manual_seed(1)
    with torch.no_grad():
        expected = model(x)
    torch.manual_seed(1)
    with torch.no_grad():
        assert_equal(expected, dag(x), NOT_EXACT.get(name, 0.0))
    state = dag.state_dict()
    for key, value in model.state_dict().items():
        if "running" in key or "num_batches" in key:
            torch.testing.assert_close(state[key], value, rtol=0, atol=0)


def test_checkpoints_of_the_source_load_strictly(name):
    model, dag, _ = converted(name)
    assert dag.state_dict().keys() == model.state_dict().keys()
    copy.deepcopy(dag).load_state_dict(model.state_dict(), strict=True)


def test_no_call_is_opaque(name):
    _, dag, _ = converted(name)
    kinds = {type(vertex.module).__name__ for vertex in dag.inner_vertices}
    assert not kinds & {"TorchCall", "TrainingSwitch"}


RELOAD = """
import json, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("timm", "torchvision"):
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocked())
import torch
from torch_dag_core.serialization import load
folder, *names = json.loads(sys.argv[1])
equal = {}
for name in names:
    stored = torch.load(f"{folder}/{name}.pt")
    with torch.no_grad():
        result = load(f"{folder}/{name}.safetensors")(stored["x"])
    results = result if isinstance(result, dict) else {"out": result}
    equal[name] = all(torch.equal(results[key], value) for key, value in stored["y"].items())
assert not {"timm", "torchvision"} & set(sys.modules)
print(json.dumps(equal))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    yield tmp_path_factory.mktemp("torchvision")
    converted.cache_clear()


def store(name, folder):
    """Write the graph, an input and its output."""
    _, dag, size = converted(name)
    x = torch.randn(1, *size)
    with torch.no_grad():
        y = dag(x)
    save(dag, folder / f"{name}.safetensors")
    torch.save({"x": x, "y": dict(y) if isinstance(y, dict) else {"out": y}}, folder / f"{name}.pt")


def test_graphs_are_saved(name, files):
    store(name, files)
    assert (files / f"{name}.safetensors").stat().st_size > 0


def test_files_reload_bit_for_bit_without_the_source(files):
    for name in MODELS:
        if not (files / f"{name}.pt").exists():
            store(name, files)
    command = [sys.executable, "-c", RELOAD, json.dumps([str(files), *MODELS])]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == dict.fromkeys(MODELS, True)
