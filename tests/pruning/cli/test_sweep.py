"""``torch-dag sweep`` and ``torch-dag sweep-plot``: rows that are true, jobs that go on, and a picture of them."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import SettingsError
from torch_dag_pruning import CalibrationError, OneShotChannelPruning, PlanError, analyze
from torch_dag_pruning.cli.sweep import sweep as command
from torch_dag_pruning.cli.sweep import sweep_plot
from torch_dag_pruning.sweep import Case, cases, sweep


@pytest.fixture
def dag():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip
    return build_from_unstructured_module(net.eval(), torch.randn(2, 3, 8, 8))


@pytest.fixture
def images():
    return torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def files(dag, images, tmp_path):
    dag.save(tmp_path / "net.safetensors")
    save_file({"images": images}, tmp_path / "data.safetensors")
    return tmp_path / "net.safetensors", tmp_path / "data.safetensors"


def run(files, *arguments):
    net, data = files
    given = [net, "--calibrate", data, "--targets", "0.75,0.5", "--criteria", "l2,variance", *arguments]
    return CliRunner().invoke(command, [str(each) for each in given], catch_exceptions=False)


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()][1:]


def test_a_row_says_what_pruning_by_hand_gives(dag, images):
    (row,) = sweep(dag, [images], [Case(0.5, "variance", "least_squares")])
    pruning = OneShotChannelPruning(dag, None, 0.5, criterion="variance")
    pruning.calibrate([images[:48]])
    pruning.prepare()
    pruned, rest = pruning.finalize(), images[48:]
    with torch.no_grad():
        wanted, found = dag(rest), pruned(rest)
    assert row.error == pytest.approx(float((found - wanted).norm() / wanted.norm()), rel=1e-5)
    assert row.flops == pytest.approx(analyze(pruned).cost() / analyze(dag).cost())
    counts = [sum(p.numel() for p in graph.parameters()) for graph in (pruned, dag)]
    assert row.parameters == pytest.approx(counts[0] / counts[1])


def test_repair_makes_the_error_smaller(dag, images):
    plain, repaired = sweep(dag, [images], cases([0.5], ["l2"], ["none", "least_squares"]))
    assert repaired.error < 0.8 * plain.error
    assert repaired.flops == plain.flops <= 0.5


def test_a_case_that_cannot_be_reached_is_a_row_that_says_so(dag, images):
    first, second = sweep(dag, [images], cases([1e-6, 0.5], ["l2"], ["none"]))
    assert "cannot be reached" in first.failure
    assert first.error is None
    assert second.failure == ""


def test_settings_are_checked_before_any_case(dag, images):
    with pytest.raises(PlanError, match="nothing"):
        next(sweep(dag, [images], cases([0.5], ["l2", "nothing"], ["none"])))
    with pytest.raises(SettingsError, match="recover"):
        next(sweep(dag, [images], cases([0.5], ["l2"], ["none", "magic"])))
    with pytest.raises(CalibrationError, match="batch 0 has one sample"):
        next(sweep(dag, [images[:1]], cases([0.5], ["l2"], ["none"])))


def test_jobs_share_the_cases(files, tmp_path):
    whole, first, second = (tmp_path / f"{name}.jsonl" for name in ("whole", "first", "second"))
    assert run(files, "--out", whole).exit_code == 0
    assert run(files, "--out", first, "--shard", "1/2").exit_code == 0
    assert run(files, "--out", second, "--shard", "2/2").exit_code == 0
    keys = [[(row["target"], row["criterion"], row["recover"]) for row in rows(each)] for each in (first, second)]
    assert len(keys[0]) == len(keys[1]) == 4
    found = {tuple(row[name] for name in ("target", "criterion", "recover")): row["error"] for row in rows(whole)}
    assert set(keys[0]) | set(keys[1]) == set(found)
    for row in (*rows(first), *rows(second)):
        assert row["error"] == pytest.approx(found[row["target"], row["criterion"], row["recover"]], rel=1e-5)


def test_an_interrupted_sweep_goes_on(files, tmp_path):
    out = tmp_path / "rows.jsonl"
    run(files, "--out", out)
    text = out.read_text()
    lines = text.splitlines()
    out.write_text("\n".join(lines[:4]) + "\n")
    result = run(files, "--out", out, "--resume")
    assert "5 cases to prune, 3 pruned before" in result.output
    assert out.read_text().splitlines()[:4] == lines[:4]
    assert len(rows(out)) == 8
    assert "0 cases to prune, 8 pruned before" in run(files, "--out", out, "--resume").output
    assert run(files, "--out", out).exit_code == 2


def test_a_sweep_of_something_else_is_not_gone_on_with(files, tmp_path):
    out = tmp_path / "rows.jsonl"
    run(files, "--out", out)
    with pytest.raises(PlanError, match="is a sweep with another config"):
        run(files, "--out", out, "--resume", "-c", "multiple_of=4")
    out.write_text("{}\n")
    with pytest.raises(PlanError, match="was not written by `torch-dag sweep`"):
        run(files, "--out", out, "--resume")


def test_what_the_sweep_decides_cannot_be_configured(files, tmp_path):
    result = run(files, "--out", tmp_path / "rows.jsonl", "-c", "criterion=l1")
    assert result.exit_code == 2
    assert "--config cannot set criterion" in result.output


def test_the_plot_has_a_line_for_each_criterion_and_repair(files, tmp_path):
    pytest.importorskip("matplotlib")
    first, second, picture = (tmp_path / name for name in ("first.jsonl", "second.jsonl", "plot.svg"))
    run(files, "--out", first, "--shard", "1/2")
    run(files, "--out", second, "--shard", "2/2")
    result = CliRunner().invoke(sweep_plot, [str(first), str(second), "--out", str(picture)], catch_exceptions=False)
    assert result.exit_code == 0
    assert result.output.count("%") == 8 * 4
    text = picture.read_text()
    assert ET.fromstring(text).tag.endswith("svg")
    for label in ("l2, none", "l2, least_squares", "variance, none", "variance, least_squares"):
        assert f"<!-- {label} -->" in text
