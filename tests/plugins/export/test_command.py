"""``torch-dag export``."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner

import torch_dag_core as td
from torch_dag_core.cli.app import app


@pytest.fixture
def model(small, tmp_path):
    small.save(tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


def call(*arguments):
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_the_command_shows_what_it_compared(model, tmp_path):
    result = call(model, "--to", "pt2", "--out", tmp_path / "net.pt2")
    assert (result.exit_code, result.exception) == (0, None), result.output
    assert "relative difference, 1x3x8x8" in result.stdout
    assert "batch size" in result.stdout
    assert f"wrote {tmp_path / 'net.pt2'}: a program for torch.export.load" in result.stdout
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(torch.export.load(tmp_path / "net.pt2").module()(x), td.load(model)(x))


def test_json_has_what_the_table_has(model, tmp_path):
    result = call(model, "--out", tmp_path / "net.pt2", "--json", "--fixed-batch", "--dtype", "float64")
    answer = json.loads(result.stdout)
    assert (answer["format"], answer["free_batch"], answer["tolerance"]) == ("pt2", False, 1e-8)
    assert answer["files"] == [str(tmp_path / "net.pt2")]
    assert answer["file_bytes"] == (tmp_path / "net.pt2").stat().st_size
    assert [check["relative"] for check in answer["checks"]] == [0]


def test_files_that_exist_are_kept_without_force(model, tmp_path):
    path = tmp_path / "net.pt2"
    path.write_text("mine")
    result = call(model, "--out", path)
    assert result.exit_code == 2
    assert "exists already; choose another path, or overwrite it with --force" in result.stderr
    assert path.read_text() == "mine"
    assert call(model, "--out", path, "--force", "--no-check", "--quiet").exit_code == 0
    assert torch.export.load(path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "onxn", "--out", "net.onnx"], "no format 'onxn'; did you mean 'onnx'?"),
        (["--out", "net.bin"], "does not tell the format; name one of: "),
        (["--out", "net.pt2", "--no-check", "--tolerance", "1"], "--no-check and --tolerance contradict each other"),
    ],
)
def test_wrong_uses_are_told_before_any_work(model, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = call(model, *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_files_beside_the_named_one_are_kept_without_force_too(small, tmp_path):
    small.save(tmp_path / "net.weights.safetensors")
    before = (tmp_path / "net.weights.safetensors").read_bytes()
    small.save(tmp_path / "small.safetensors")
    result = call(tmp_path / "small.safetensors", "--out", tmp_path / "net.py")
    assert result.exit_code == 2
    assert "net.weights.safetensors' exists already; choose another path" in result.stderr
    result = call(tmp_path / "net.weights.safetensors", "--out", tmp_path / "net.py", "--force")
    assert result.exit_code == 2
    assert "net.weights.safetensors' is read by this command; choose another path" in result.stderr
    assert (tmp_path / "net.weights.safetensors").read_bytes() == before
    assert not (tmp_path / "net.py").exists()
    result = call(tmp_path / "small.safetensors", "--out", tmp_path / "net.py", "--force", "--json")
    assert json.loads(result.stdout)["files"] == [str(tmp_path / "net.py"), str(tmp_path / "net.weights.safetensors")]


def test_a_difference_is_a_failure(model, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    result = call(model, "--out", tmp_path / "net.onnx", "--tolerance", "0")
    assert result.exit_code == 1
    assert "of the largest output element from the graph, more than 0; nothing was written" in result.stderr
    assert not (tmp_path / "net.onnx").exists()
