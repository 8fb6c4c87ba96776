"""``torch-dag share``."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from torch_dag_core.cli.app import app


@pytest.fixture
def file(pruned, tmp_path):
    pruned.save(tmp_path / "graph.safetensors")
    return str(tmp_path / "graph.safetensors")


def run(*arguments):
    return CliRunner().invoke(app, ["share", *map(str, arguments)])


def test_a_file_becomes_a_folder(file, tmp_path):
    done = run(file, "--out", tmp_path / "net", "--license", "mit", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["written"] == str(tmp_path / "net")
    assert "license: mit\n" in (tmp_path / "net" / "README.md").read_text()


def test_preprocessing_is_that_of_a_model_of_timm(tmp_path):
    pytest.importorskip("timm")
    pytest.importorskip("torch_dag_timm")
    done = run("timm:resnet10t", "--size", "3,64,64", "--out", tmp_path / "net")
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "net" / "config.json").read_text())["pretrained_cfg"]["crop_pct"] == 0.875
    file = tmp_path / "net" / "model.safetensors"
    assert run(file, "--out", tmp_path / "again", "--preprocessing", "timm:resnet10t").exit_code == 0
    one, two = ((tmp_path / name / "config.json").read_text() for name in ("net", "again"))
    assert one == two


def test_folders_with_a_graph_are_not_overwritten_unless_forced(file, tmp_path):
    assert run(file, "--out", tmp_path / "net").exit_code == 0
    refused = run(file, "--out", tmp_path / "net")
    assert refused.exit_code == 2
    assert "model.safetensors' exists already; choose another path, or overwrite it with --force" in refused.stderr
    assert run(file, "--out", tmp_path / "net", "--force").exit_code == 0


def test_one_place_is_needed(file, tmp_path):
    for wrong in ((), ("--out", tmp_path / "net", "--to", "me/net")):
        refused = run(file, *wrong)
        assert refused.exit_code == 2
        assert "give either a folder with --out, or a repository with --to" in refused.stderr
    assert run(file, "--out", file).exit_code == 2
