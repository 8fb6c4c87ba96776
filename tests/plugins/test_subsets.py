"""Built wheels work in every subset that their dependencies allow."""

from __future__ import annotations

import pytest

SCRIPT = """
import sys
import torch
from torch import nn
from torch_dag_core.cli.references import load_model
from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.plugins.loading import default_registry, list_plugins

registry = default_registry()
assert [str(info.error) for info in list_plugins() if info.error] == []
reference, file = sys.argv[1:]
if reference == "plain":
    model, inputs = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), torch.rand(2, 3, 8, 8)
else:
    model, inputs = load_model(reference), None
dag = build_from_unstructured_module(model.eval(), inputs)
dag.save(file)
example = torch.rand(2, *[size or 8 for size in dag.input_spec.tensors[0].shape[1:]])
assert torch.allclose(DagModule.load(file)(example), model(example), atol=1e-5)
print("works with", *sorted(info.name for info in list_plugins()))
"""
SUBSETS = {
    "core": (("core",), "plain"),
    "core-timm": (("core", "timm"), "timm:vit_tiny_patch16_224"),
    "core-pruning": (("core", "pruning"), "plain"),
    "all": (("core", "timm", "pruning"), "timm:resnet18"),
    "all-third-party": (("core", "timm", "pruning", "acme"), "acme:net"),
}


@pytest.mark.heavy
@pytest.mark.parametrize("subset", SUBSETS)
def test_wheels_of_a_subset_work(environments, tmp_path, subset, distributions_of_plugins):
    names, reference = SUBSETS[subset]
    if subset.startswith("all"):
        names = (*names, *distributions_of_plugins)
    without = () if "timm" in names else ("timm", "torchvision")
    environment = environments(*names, without=without)
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    result = environment.run("python", "-W", "error", script, reference, tmp_path / "graph.safetensors")
    assert result.stdout.startswith("works with")
    assert set(result.stdout.split()[2:]) >= set(names) - set(distributions_of_plugins)
    assert "failed" not in environment.run("torch-dag", "plugins").stdout
