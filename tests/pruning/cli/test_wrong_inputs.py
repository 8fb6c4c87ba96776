"""Wrong inputs of the commands for pruning: one sentence that helps, and nothing written."""

from __future__ import annotations

import json

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn

from torch_dag_core.cli.app import app
from torch_dag_core.conversion.convert import build_from_unstructured_module

PRUNE = ("prune", "net.safetensors", "-o", "new.safetensors")
HALF = (*PRUNE, "--keep-flops", "0.5")
SCAN = ("sensitivity", "net.safetensors", "--calibrate", "data.safetensors")

USAGE = {
    "no model to prune": (("prune", "--keep-flops", "0.5", "-o", "new.safetensors"), "Missing argument 'MODEL'"),
    "no output": (("prune", "net.safetensors", "--keep-flops", "0.5"), "Missing option '-o' / '--out'"),
    "an output that is the model": (("prune", "net.safetensors", "-o", "net.safetensors", "--force"), "is read by"),
    "a plan over a file": ((*HALF, "--save-plan", "plan.json"), "exists already"),
    "a plan over the model": ((*HALF, "--save-plan", "new.safetensors"), "is given for two outputs"),
    "no samples": ((*HALF, "--calibrate", "data.safetensors", "--samples", "0"), "0 is not in the range"),
    "no orbits": (("inspect", "net.safetensors", "--top", "0"), "0 is not in the range"),
    "no data": (("sensitivity", "net.safetensors"), "Missing option '--calibrate'"),
    "letters as shares": ((*SCAN, "--shares", "half"), "takes numbers with commas, such as 0.75,0.5, not 'half'"),
    "neither orbits nor blocks": ((*SCAN, "--by", "layer"), "'layer' is not one of"),
}
FAILURES = {
    "no budget": (PRUNE, "channel pruning needs a budget: give keep_flops or"),
    "too large a budget": ((*PRUNE, "--keep-flops", "2"), "above 0 and at most 1; got 2.0"),
    "no FLOPs": ((*PRUNE, "--keep-flops", "0"), "above 0 and at most 1; got 0.0"),
    "letters as a budget": ((*PRUNE, "--keep-flops", "half"), "keep_flops takes float, got 'half'"),
    "a budget given twice": ((*HALF, "keep_flops=0.5"), "the setting 'keep_flops' is given twice"),
    "an unknown setting": ((*HALF, "widths=8"), "channel-pruning has no setting 'widths'"),
    "a word that is no setting": ((*HALF, "please"), "'please' is no setting; write key=value"),
    "an unknown criterion": ((*HALF, "--criterion", "taste"), "there is no importance criterion 'taste'; there are"),
    "an unknown scope": ((*HALF, "--scope", "galaxy"), "scope must be one of"),
    "an unknown repair": ((*HALF, "--recover", "prayer"), "recover must be one of"),
    "no steps": ((*HALF, "--steps", "0"), "steps must be an integer of at least 1"),
    "a layer that does not exist": ((*HALF, "--ignore", "neck"), "nothing in the graph matches 'neck'"),
    "a criterion that needs data": ((*HALF, "--criterion", "taylor"), "--calibrate"),
    "a plan that does not exist": ((*PRUNE, "--plan", "none.json"), "none.json"),
    "a plan that is none": ((*PRUNE, "--plan", "plan.json"), "plan.json"),
    "data that does not exist": ((*HALF, "--calibrate", "none"), "'none' is no calibration data; name a folder"),
    "data for other inputs": (
        (*HALF, "--calibrate", "other.safetensors"),
        "batch 0 has sizes (3, 5) for the input input, the graph takes (any, 4)",
    ),
    "data that is no file of tensors": ((*HALF, "--calibrate", "text.safetensors"), "text.safetensors"),
    "a share above the whole": ((*SCAN, "--shares", "2"), "2"),
    "a table of an unknown kind": ((*SCAN, "-o", "table.xls"), "a table is written as .csv or .json, not '.xls'"),
    "a model that does not exist": (("inspect", "none.safetensors"), "there is no file 'none.safetensors'"),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    build_from_unstructured_module(net, torch.ones(2, 4)).save(tmp_path / "net.safetensors")
    save_file({"data": torch.randn(3, 4)}, tmp_path / "data.safetensors")
    save_file({"data": torch.randn(3, 5)}, tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("a text that is long enough to be a header of a file of tensors")
    (tmp_path / "plan.json").write_text(json.dumps({"mine": 1}))
    return tmp_path


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(folder, arguments, code):
    before = contents(folder)
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit)
    assert contents(folder) == before
    return result.stderr


@pytest.mark.parametrize("case", USAGE)
def test_wrong_use_is_told_in_a_sentence(folder, case):
    arguments, said = USAGE[case]
    assert said in " ".join(refused(folder, arguments, 2).split())


@pytest.mark.parametrize("case", FAILURES)
def test_failures_are_told_in_a_sentence(folder, case):
    arguments, said = FAILURES[case]
    (line,) = [line for line in refused(folder, arguments, 1).splitlines() if line.startswith("error: ")]
    assert said in line
