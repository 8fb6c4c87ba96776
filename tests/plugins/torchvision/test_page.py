"""The code of docs/detection.md, run from top to bottom."""

import re
from pathlib import Path

import torch

import torch_dag_core as td
from torch_dag_core.plugins.declarations import declare
from torch_dag_core.plugins.loading import default_registry

PAGE = Path(__file__).parents[3] / "docs" / "detection.md"


def test_the_code_of_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)
    assert "masked and removed agree" in str(names["proof"])
    assert (tmp_path / "detector.safetensors").exists()
    registry = default_registry().copy()
    registry.add(declare("acme.best", names["Best"]), owner="acme")
    registry.add_atomic(names["spec"], owner="acme")
    model = names["Detector"]()
    dag = td.build_from_unstructured_module(model, torch.rand(2, 8), modes="eval", registry=registry)
    x = torch.rand(3, 8) * 4
    found = [row[row >= 0][:, None] for row in dag(x)]
    for mine, theirs in zip(found, model(x), strict=True):
        assert torch.equal(mine, theirs[:10])
