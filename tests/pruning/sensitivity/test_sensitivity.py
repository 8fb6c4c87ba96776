"""Which orbits bear to be pruned: against removal, and written to files."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import SettingsError, TorchDagError
from torch_dag_core.testing import awaken
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.cli.sensitivity import sensitivity as command
from torch_dag_pruning.cut import remove_channels
from torch_dag_pruning.errors import CalibrationError, PlanError
from torch_dag_pruning.plan.plan import Plan
from torch_dag_pruning.sensitivity_scan import Sensitivity, sensitivity


class Block(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.a, self.norm, self.b = (
            nn.Conv2d(width, hidden, 3, padding=1),
            nn.BatchNorm2d(hidden),
            nn.Conv2d(hidden, width, 1),
        )

    def forward(self, x):
        return x + self.b(F.relu(self.norm(self.a(x))))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.blocks = nn.Conv2d(3, 8, 3, padding=1), nn.Sequential(Block(8, 12), Block(8, 16))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


@pytest.fixture
def dag():
    torch.manual_seed(0)
    return build_from_unstructured_module(awaken(Net()).eval(), torch.randn(2, 3, 8, 8))


@pytest.fixture
def images():
    return torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def test_the_error_is_that_of_the_graph_with_the_slots_removed(dag, images):
    analysis = analyze(dag)
    table = sensitivity(analysis, images.split(8), shares=(0.5, 0.25))
    assert [row.name for row in table.rows] == [orbit.key for orbit in analysis.orbits for _ in range(2)]
    assert table.samples == 24
    with torch.no_grad():
        wanted = dag(images)
        for row in table.rows:
            plan = Plan.whole(analysis).resized(analysis, {row.name: row.kept})
            cut = remove_channels(dag, plan, analysis=analysis)
            assert row.error == pytest.approx(float((cut(images) - wanted).norm() / wanted.norm()), rel=1e-4)
            assert row.flops == pytest.approx(float(analyze(cut).cost()) / float(analysis.cost()))


def test_blocks_are_pruned_as_a_whole(dag, images):
    table = sensitivity(analyze(dag), [images], shares=(0.5,), by="block")
    assert [(row.name, row.slots, row.kept) for row in table.rows] == [
        ("stem", 8, 4), ("blocks.0", 12, 6), ("blocks.1", 16, 8),
    ]  # fmt: skip


def test_nothing_is_changed_and_all_slots_give_no_error(dag, images):
    analysis, before = analyze(dag), dag(images)
    dag.train()
    table = sensitivity(analysis, [images], shares=(1.0,))
    assert [row.error for row in table.rows] == [0.0] * 3
    assert dag.training
    assert torch.equal(dag.eval()(images), before)


def test_what_nothing_reads_bears_to_be_pruned(dag, images):
    with torch.no_grad():
        dag.get_submodule("blocks.0.b").weight.zero_()
    rows = {row.name: row.error for row in sensitivity(analyze(dag), [images], shares=(0.5,)).rows}
    assert rows["blocks.0.a.weight:0"] < 1e-6 < rows["blocks.1.a.weight:0"]


def test_tables_are_written_as_json_and_csv(dag, images, tmp_path):
    done = []
    table = sensitivity(analyze(dag), [images], progress=lambda *numbers: done.append(numbers))
    assert done[-1] == (9, 9)
    table.save(tmp_path / "table.json")
    read = json.loads((tmp_path / "table.json").read_text())
    assert read["samples"] == 24
    assert [each["error"] for each in read["rows"]] == [row.error for row in table.rows]
    table.save(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["error"]) for row in rows] == [row.error for row in table.rows]
    with pytest.raises(PlanError, match=r"a table is written as \.csv or \.json, not '\.txt'"):
        table.save(tmp_path / "table.txt")
    assert str(table).splitlines()[1].startswith("stem.weight:0")
    assert str(Sensitivity((), 0))


def test_mistakes_are_refused(dag, images):
    analysis = analyze(dag)
    with pytest.raises(PlanError, match="shares are fractions of the slots that stay"):
        sensitivity(analysis, [images], shares=(0.5, 0.0))
    with pytest.raises(SettingsError, match="by must be one of 'orbit', 'block'"):
        sensitivity(analysis, [images], by="layer")
    with pytest.raises(CalibrationError, match="holds no batch"):
        sensitivity(analysis, [])
    with pytest.raises(PlanError, match="looks at data"):
        sensitivity(analysis, [images], criterion="taylor")


def test_the_command_shows_and_saves_the_table(dag, images, tmp_path):
    dag.save(tmp_path / "net.safetensors")
    save_file({"x": images}, tmp_path / "data.safetensors")
    options = ["--calibrate", tmp_path / "data.safetensors", "--shares", "0.5", "--by", "block"]

    def run(*more):
        arguments = [tmp_path / "net.safetensors", *options, *more]
        return CliRunner().invoke(command, [str(each) for each in arguments], catch_exceptions=False)

    result = run("--out", tmp_path / "table.csv")
    assert result.exit_code == 0
    assert "blocks.1" in result.output
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 4
    assert run("--out", tmp_path / "table.csv").exit_code == 2
    assert run("--shares", "half").exit_code == 2
    with pytest.raises(TorchDagError, match="a table is written as"):
        run("--out", tmp_path / "table.txt")
