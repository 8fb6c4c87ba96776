"""``torch-dag prune``: from a model to a smaller file, with everything said that a user needs."""

from __future__ import annotations

import json
import re

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn

from torch_dag_core.analysis.latency import median_latencies
from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import TorchDagError
from torch_dag_core.graph.dag import DagModule
from torch_dag_pruning.cli.command import prune
from torch_dag_pruning.plan.plan import Plan


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 16, 3, padding=1))
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.layers(x).mean((2, 3)))


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    dag = build_from_unstructured_module(Net().eval(), torch.randn(2, 3, 16, 16))
    dag.save(tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def run(*arguments):
    return CliRunner().invoke(prune, [str(argument) for argument in arguments], catch_exceptions=False)


def test_writes_a_smaller_file_and_says_what_it_did(saved, tmp_path):
    out = tmp_path / "small.safetensors"
    result = run(saved, "--keep-flops", "0.5", "--out", out, "--save-plan", tmp_path / "plan.json")
    assert result.exit_code == 0
    for said in ("vertices", "can be pruned", "FLOPs", "latency", "masked and removed agree to", "td.load", str(out)):
        assert said in result.output
    smaller = DagModule.load(out)
    assert smaller(torch.randn(1, 3, 16, 16)).shape == (1, 4)
    assert out.stat().st_size < saved.stat().st_size
    assert sum(Plan.load(tmp_path / "plan.json").counts().values()) < 40
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.safetensors", "plan.json", "small.safetensors"]


def test_shows_sizes_before_and_after_and_what_to_do_next(saved, tmp_path):
    arguments = (saved, "--keep-flops", "0.5", "--out", tmp_path / "small.safetensors")
    said = run(*arguments).stdout
    assert re.search(r"layers\.0\.weight +\S* +24x3x3x3 +\S* +\d+x3x3x3", said)
    assert "next: repeat with --calibrate DATA" in said
    found = json.loads(run(*arguments, "--force", "--json").stdout)
    sizes = {row["tensor"]: (row["before"], row["after"]) for row in found["sizes"]}
    smaller = DagModule.load(tmp_path / "small.safetensors")
    assert sizes["layers.0.weight"] == ([24, 3, 3, 3], list(smaller.get_parameter("layers.0.weight").shape))
    assert sizes.keys() <= {"layers.0.weight", "layers.2.weight", "head.weight"}
    assert found["needs"] == []


def test_missing_folder_is_refused_before_any_work(saved, tmp_path):
    result = run(saved, "--keep-flops", "0.5", "--out", tmp_path / "nowhere" / "small.safetensors")
    assert result.exit_code == 2
    assert "there is no folder" in result.output


def test_the_place_of_the_plan_is_checked_before_any_work(saved, tmp_path):
    out, plan = tmp_path / "small.safetensors", tmp_path / "plan.json"
    for path, said in ((tmp_path / "nowhere" / "plan.json", "there is no folder"), (tmp_path, "it is a folder"),
                       (out, "is given for two outputs"), (saved, "is read by this command")):  # fmt: skip
        result = run(saved, "--keep-flops", "0.5", "--out", out, "--save-plan", path)
        assert result.exit_code == 2
        assert said in " ".join(result.output.split())
    plan.write_text("mine")
    result = run(saved, "--keep-flops", "0.5", "--out", out, "--save-plan", plan)
    assert (result.exit_code, plan.read_text()) == (2, "mine")
    assert run(saved, "--keep-flops", "0.5", "--out", out, "--save-plan", plan, "--force").exit_code == 0
    assert sum(Plan.load(plan).counts().values()) < 40


def test_unreachable_share_is_one_clear_error(saved, tmp_path):
    with pytest.raises(TorchDagError, match="cannot be reached: with every orbit at its minimum"):
        run(saved, "--keep-flops", "0.0001", "--out", tmp_path / "small.safetensors")
    assert not (tmp_path / "small.safetensors").exists()


def test_unknown_criterion_is_one_clear_error(saved, tmp_path):
    with pytest.raises(TorchDagError, match="no importance criterion 'l7'"):
        run(saved, "--keep-flops", "0.5", "--criterion", "l7", "--out", tmp_path / "small.safetensors")


def test_measuring_leaves_the_modes_as_they_are():
    model = Net()
    model.head.eval()
    assert min(median_latencies((model, model), [torch.randn(1, 3, 8, 8)], seconds=0.01)) > 0
    assert model.training
    assert not model.head.training


@pytest.fixture
def data(tmp_path):
    images = torch.randn(80, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    save_file({"x": images}, tmp_path / "data.safetensors")
    return tmp_path / "data.safetensors"


def test_weights_are_repaired_with_data(saved, data, tmp_path):
    out = tmp_path / "small.safetensors"
    result = run(saved, "--keep-flops", "0.5", "--calibrate", data, "--samples", "64", "--out", out)
    said = re.search(r"error of the outputs on held-out samples: ([\d.]+)% before, ([\d.]+)% after", result.output)
    assert float(said[2]) < 0.5 * float(said[1])
    pruned = DagModule.load(out)
    assert pruned.provenance["recovery"]["samples"] == 64
    images, net = torch.randn(50, 3, 16, 16), DagModule.load(saved)
    with torch.no_grad():
        wanted, given = net(images), pruned(images)
    assert float((given - wanted).norm()) < 1.5 * float(said[2]) / 100 * float(wanted.norm())


@pytest.mark.parametrize("criterion", ["taylor", "fisher", "l2_fisher", "variance", "wanda", "obs"])
def test_criteria_look_at_the_data(saved, data, tmp_path, criterion):
    out = tmp_path / "small.safetensors"
    options = ("--keep-flops", "0.5", "--criterion", criterion, "--per", "flops", "--out", out)
    assert run(saved, *options, "--calibrate", data, "--recover", "none").exit_code == 0
    assert "recovery" not in DagModule.load(out).provenance
    with pytest.raises(TorchDagError, match="looks at data; call calibrate"):
        run(saved, *options, "--force")


def test_data_that_nothing_looks_at_is_refused(saved, data, tmp_path):
    with pytest.raises(TorchDagError, match="does not look at data with these settings; leave out --calibrate"):
        run(saved, "--keep-flops", "0.5", "--recover", "none", "--calibrate", data, "--out", tmp_path / "s.safetensors")


def test_layers_are_held_back_and_outputs_freed_by_name(saved, tmp_path):
    out, plan = tmp_path / "small.safetensors", tmp_path / "plan.json"
    options = ("--keep-flops", "0.6", "--out", out, "--save-plan", plan, "--force")
    assert run(saved, *options, "--ignore", "layers.[0]").exit_code == 0
    assert len(Plan.load(plan).kept["layers.0.weight:0"]) == 24
    assert run(saved, *options, "--only", "layers.0", "--bounds", "layers.0=..12").exit_code == 0
    assert Plan.load(plan).counts() == {"layers.0.weight:0": 12, "layers.2.weight:0": 16}
    assert run(saved, *options, "--kinds", "widths", "--multiple-of", "8,layers.2=4").exit_code == 0
    assert {count % 4 for count in Plan.load(plan).counts().values()} == {0}
    result = run(saved, *options, "--free", "head", "--bounds", "head=..2")
    assert "output 'head' keeps 2 positions" in " ".join(result.output.split())
    assert DagModule.load(out)(torch.randn(1, 3, 16, 16)).shape == (1, 2)
    with pytest.raises(TorchDagError, match="ignore: nothing in the graph matches 'layer'; did you mean"):
        run(saved, *options, "--ignore", "layer")


def test_parameters_are_a_budget_of_their_own(saved, tmp_path):
    out = tmp_path / "small.safetensors"
    assert run(saved, "--keep-parameters", "0.3", "--out", out).exit_code == 0
    sizes = [sum(parameter.numel() for parameter in DagModule.load(path).parameters()) for path in (saved, out)]
    assert sizes[1] <= 0.3 * sizes[0]
    with pytest.raises(TorchDagError, match="needs a budget: give keep_flops or keep_parameters"):
        run(saved, "--out", out, "--force")
