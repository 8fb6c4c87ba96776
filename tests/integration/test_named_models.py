"""Well-known models at their own sizes, from source to pruned file: every promise on each of them."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

import torch_dag_core as td
from torch_dag_core.testing import awaken

pytestmark = pytest.mark.heavy
timm = pytest.importorskip("timm")
models = pytest.importorskip("torchvision").models
tdp = pytest.importorskip("torch_dag_pruning")

SIZES = {
    "timm:resnet18": 224, "timm:resnet50": 224, "timm:mobilenetv3_small_100": 224, "timm:efficientnet_b0": 224,
    "timm:convnextv2_atto": 224, "timm:densenet121": 224, "timm:regnety_002": 224, "timm:vit_tiny_patch16_224": 224,
    "timm:deit3_small_patch16_224": 224, "timm:swin_tiny_patch4_window7_224": 224, "timm:mixer_s16_224": 224,
    "timm:maxvit_pico_rw_256": 256, "timm:levit_128s": 224, "torchvision:resnet18": 224,
    "torchvision:googlenet": 224, "torchvision:inception_v3": 299, "torchvision:shufflenet_v2_x0_5": 224,
    "torchvision:convnext_tiny": 224, "torchvision:swin_t": 224, "torchvision:vit_b_16": 224,
    "torchvision:fcn_resnet50": 224, "torchvision:deeplabv3_mobilenet_v3_large": 224, "torchvision:r3d_18": 112,
}  # fmt: skip
OF_ONE_SIZE = {
    "timm:vit_tiny_patch16_224", "timm:deit3_small_patch16_224", "timm:swin_tiny_patch4_window7_224",
    "timm:mixer_s16_224", "timm:levit_128s", "torchvision:swin_t", "torchvision:vit_b_16",
}  # fmt: skip
STEPS = {"timm:maxvit_pico_rw_256": 256}
TOLERANCES = {"timm:convnextv2_atto": 1e-5, "torchvision:vit_b_16": 1e-5}
OPTIONS = {
    "torchvision:googlenet": {"init_weights": False}, "torchvision:inception_v3": {"init_weights": False},
    "torchvision:fcn_resnet50": {"weights_backbone": None},
    "torchvision:deeplabv3_mobilenet_v3_large": {"weights_backbone": None},
}  # fmt: skip
RELOAD = """
import sys
for source in ("timm", "torchvision", "torch_dag_timm"):
    sys.modules[source] = None
import torch
import torch_dag_core as td
dag, (x, y) = td.load(sys.argv[1]), torch.load(sys.argv[2])
with torch.no_grad():
    found = dag.eval()(x)
def first(value):
    return next(iter(value.values())) if isinstance(value, dict) else value[0] if isinstance(value, tuple) else value
assert torch.equal(first(found), first(y))
before = [parameter.detach().clone() for parameter in dag.train().parameters()]
optimizer = torch.optim.SGD(dag.parameters(), lr=0.1)
first(dag(x)).square().mean().backward()
optimizer.step()
assert any(not torch.equal(old, new) for old, new in zip(before, dag.parameters()))
"""


def build(reference):
    library, _, name = reference.partition(":")
    torch.manual_seed(0)
    make = timm.create_model if library == "timm" else models.get_model
    return awaken(make(name, **OPTIONS.get(reference, {}))).eval()


def images(reference, batch, more=0):
    size = SIZES[reference] + more
    frames = (8,) if reference.endswith("r3d_18") else ()
    return torch.randn(batch, 3, *frames, size, size, generator=torch.Generator().manual_seed(batch))


@pytest.fixture(scope="module", params=SIZES)
def case(request):
    model = build(request.param)
    return request.param, model, td.build_from_unstructured_module(model, images(request.param, 2))


def results(model, x):
    """Return the outputs by name, or the error of a source that does not take the input."""
    torch.manual_seed(1)
    try:
        with torch.no_grad():
            output = model(x)
    except ValueError as error:
        return str(error)
    values = output if isinstance(output, tuple) else (output,)
    named = output if isinstance(output, dict) else dict(enumerate(values))
    return {key: value for key, value in named.items() if value is not None}


def assert_equal(reference, model, dag, x):
    expected, found = results(model, x), results(dag, x)
    if isinstance(expected, str):
        assert "more than 1 value per channel" in expected
        assert found == expected
        return
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert value.isfinite().all()
        assert value.std() > 0
        assert (found[key] - value).abs().max() <= TOLERANCES.get(reference, 0.0) * value.abs().max()


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_equal_in_evaluation(case, batch):
    reference, model, dag = case
    assert_equal(reference, model, dag, images(reference, batch))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_equal_in_training(case, batch):
    reference, model, dag = case
    model, dag = copy.deepcopy(model).train(), dag.clone().train()
    assert_equal(reference, model, dag, images(reference, batch))
    tolerance = TOLERANCES.get(reference, 0.0)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(dag.state_dict()[key], value, rtol=tolerance, atol=tolerance)


def test_equal_at_another_image_size(case):
    reference, model, dag = case
    x = images(reference, 2, more=32)
    if reference in OF_ONE_SIZE:
        with pytest.raises(td.InputError, match="the image size is fixed"):
            dag(x)
    elif reference in STEPS:
        with pytest.raises(td.InputError, match="the graph holds only where"):
            dag(x)
        assert dag.input_spec.notes == ()
        assert_equal(reference, model, dag, images(reference, 2, more=STEPS[reference]))
    else:
        assert_equal(reference, model, dag, x)


def test_checkpoint_loads_and_file_reloads_without_source(case, tmp_path):
    reference, model, dag = case
    dag.clone().load_state_dict(model.state_dict(), strict=True)
    assert_reloads(dag, images(reference, 2), tmp_path)


def assert_reloads(dag: nn.Module, x, folder):
    """Assert that a fresh interpreter without the source gets the same output, and trains a step."""
    with torch.no_grad():
        y = dag.eval()(x)
    dag.save(folder / "graph.safetensors")
    torch.save((x, dict(y) if isinstance(y, dict) else y), folder / "tensors.pt")
    command = [sys.executable, "-c", RELOAD, str(folder / "graph.safetensors"), str(folder / "tensors.pt")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_masked_equals_removed(case, tmp_path):
    reference, _, dag = case
    x = images(reference, 2)
    analysis = tdp.analyze(dag, x)
    plan = tdp.Plan.random(analysis, 0.6, seed=1)
    pruned = tdp.remove_channels(dag, plan, verify=False, analysis=analysis)
    assert analysis.orbits
    single = tdp.removal_proof(analysis, plan, pruned)
    double = tdp.removal_proof(analysis, plan, pruned, dtype=torch.float64)
    assert single.worst < 1e-4
    assert double.worst < 1e-12
    assert double.effect > 1e-3
    counts = plan.atom_counts(analysis)
    assert td.flops(pruned, x[:1]).flops == analysis.cost(counts)
    assert sum(parameter.numel() for parameter in pruned.parameters()) == analysis.parameters_count(counts)
    assert_reloads(pruned, x, tmp_path)
