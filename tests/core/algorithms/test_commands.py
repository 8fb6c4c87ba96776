"""`torch-dag algorithms` and `torch-dag run`, which know no algorithm by name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from torch_dag_core import cli
from torch_dag_core.graph.dag import DagModule

pytestmark = pytest.mark.usefixtures("installed")


def row(result, name):
    (line,) = [line for line in result.stdout.splitlines() if f" {name} " in line]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_algorithms_are_listed(run):
    result = run("algorithms")
    assert result.exit_code == 0
    assert row(result, "thinning") == ["thinning", "sample-thinning", "stable", "Take out activations."]
    assert row(result, "unfinished") == ["unfinished", "sample-thinning", "stub", "Nothing yet."]


def test_settings_of_one_are_listed(run):
    result = run("algorithms", "thinning")
    assert row(result, "keep") == ["keep", "int", "0", "how many stay"]
    assert row(result, "scale")[:3] == ["scale", "float | None", "None"]
    assert row(run("algorithms", "unfinished"), "share")[2] == "required"


def test_nothing_to_list(run, none_installed):
    assert "no installed plugin offers an algorithm" in run("algorithms").stdout


def test_plugins_with_stubs_say_so(run):
    assert row(run("plugins"), "thinning")[-1] == "on, stub"


def test_run_saves_the_result(run, saved, tmp_path, dag):
    out = tmp_path / "out.safetensors"
    result = run("run", "thinning", saved, "--config", "keep=1", "--out", out)
    assert result.exit_code == 0, result.output
    assert "thinning: 2 candidates, 100 FLOPs, at most 20.00% of them can go" in result.stdout
    assert "75.00% of the cost is left" in result.stdout
    x = torch.randn(3, 4)
    loaded = DagModule.load(out)
    assert [vertex.name for vertex in loaded.inner_vertices] == ["linear", "tanh", "linear1"]
    linear = dag.get_vertex_by_name("linear1").module
    assert torch.equal(loaded(x), linear(torch.tanh(dag.get_vertex_by_name("linear").module(x))))


@pytest.mark.parametrize(
    "settings",
    [("--config", "keep=1", "--config", "loud=yes"), ("--config", "keep=1", "loud=yes"), ("keep=1", "-c", "loud=yes")],
)
def test_settings_may_follow_one_another(run, saved, settings):
    assert "75.00%" in run("run", "thinning", saved, *settings).stdout


def test_a_run_without_an_output_says_so_first(run, saved):
    result = run("run", "thinning", saved, "keep=1")
    assert result.stdout.startswith("nothing will be saved; --out saves the result\n")
    assert "nothing will be saved" not in run("run", "thinning", saved, "keep=1", "--analyze").stdout


def test_analyze_stops_after_the_report(run, saved, tmp_path):
    result = run("run", "learned-thinning", saved, "--analyze", "--out", tmp_path / "out.safetensors")
    assert result.exit_code == 0
    assert "2 candidates" in result.stdout
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("unfinished", "share=0.5"),
            r"unfinished is a stub: prepare() does not exist yet, it needs somebody to write",
        ),
        (("learned-thinning",), "learned-thinning learns what to remove, which takes data and a training loop"),
        (("thining",), "no algorithm is called 'thining'; did you mean 'thinning' or"),
        (("unfinished",), "unfinished needs share=..."),
        (("unfinished", "share=much"), "share takes float, got 'much'"),
        (("thinning", "keep=1.5"), "keep takes int, got '1.5'"),
        (("thinning", "loud=maybe"), "loud takes bool, got 'maybe'"),
        (("thinning", "kep=1"), "thinning has no setting 'kep'; did you mean 'keep'?"),
        (("thinning", "keep"), "'keep' is no setting; write key=value"),
        (("thinning", "keep=1", "keep=2"), "the setting 'keep' is given twice"),
        (("thinning", "keep=-1"), "thinning: keep must be at least 0, got -1"),
        (("thinning", "keep=9"), "thinning: the graph has only 2 such vertices"),
        (("impostor",), "impostor of sample-thinning created a list, which has no analyze()"),
    ],
)
def test_errors_are_one_line(run, saved, arguments, message):
    name, *settings = arguments
    result = run("run", name, saved, *settings)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_stub_shows_its_analysis_before_it_stops(run, saved):
    result = run("run", "unfinished", saved, "share=0.5")
    assert "2 candidates" in result.stdout


def test_an_unknown_model_is_one_line(run):
    result = run("run", "thinning", "nowhere.safetensors")
    assert result.exit_code == 1
    assert result.stderr == "error: there is no file 'nowhere.safetensors'\n"


def test_the_command_line_knows_no_algorithm():
    """No string in its source mentions a kind of compression, but for the hint where to get one."""
    for file in Path(cli.__file__).parent.glob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        strings = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and type(node.value) is str]
        named = [text for text in strings if any(word in text for word in ("channel", "block", "low-rank", "llrc"))]
        assert named == []
