"""``torch-dag coverage``: what becomes of models that work, fail, hang, die or are too large, and of the file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from torch_dag_core.cli.app import app
from torch_dag_core.cli.coverage import library
from torch_dag_core.cli.coverage.comparison import differences, in_double_precision, too_far
from torch_dag_core.cli.coverage.figures import Figures
from torch_dag_core.cli.coverage.kept import keep_structure, verdicts
from torch_dag_core.cli.coverage.record import CoverageFile, Header
from torch_dag_core.cli.coverage.survey import Choice
from torch_dag_core.cli.coverage.table import group_of, page
from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.conversion.example_inputs import ExampleInputs
from torch_dag_core.plugins.model_sources import ModelList

MODELS = '''
import os
import sys
import time

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))

    def forward(self, x):
        return self.layers(x)


class Branching(Net):
    def forward(self, x):
        return self.layers(x) if x.sum() > 0 else x


class Watched(Net):
    def forward(self, x):
        y = self.layers(x)
        return y * 0.0 if self.training and not y.isfinite().all() else y


class Paired(Net):
    def forward(self, x):
        first, second = self.layers(x)
        return first - second


class Wrong(Net):
    """Computes something else while it is traced: it looks at its callers, which no trace can watch."""

    def forward(self, x):
        frame, traced = sys._getframe(), False
        while frame is not None:
            frame, traced = frame.f_back, traced or frame.f_globals["__name__"].startswith("torch_dag_core.tracing.")
        return self.layers(x) * (1.0 if traced else 2.0)


class Broken(nn.Module):
    def __init__(self):
        raise ValueError("no such thing")


class Slow(Net):
    def forward(self, x):
        time.sleep(600)


class Dying(Net):
    def forward(self, x):
        os._exit(3)


class Hungry(Net):
    def __init__(self):
        super().__init__()
        if torch.get_default_device().type != "meta":
            self.held = torch.ones(2**33)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coverage")
    (folder / "tiny_models.py").write_text(MODELS)
    return folder


@pytest.fixture(scope="module")
def run(folder):
    """Return a function that examines some of these models, as if an installed plugin listed them."""

    def run(out, *options, names=(), source="tiny_models"):
        listed = ModelList(name="tiny_models", names=lambda: names, distribution="torch")
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(folder)
            patch.setattr(library, "named_contributions", lambda *_: {"tiny_models": listed})
            return CliRunner().invoke(app, ["coverage", source, "-o", str(folder / out), *options])

    return run


@pytest.fixture(scope="module")
def examined(folder, run):
    """Return the result of examining all models but the largest, with its file."""
    return run("all.jsonl", "--jobs", "2", names=("Net", "Broken", "Branching", "Wrong", "Dying")), folder / "all.jsonl"


def rows(path):
    return CoverageFile.read(path).rows


def test_a_model_is_converted_compared_and_loaded_without_its_source(examined):
    result, out = examined
    assert result.exit_code == 0, result.output
    row = rows(out)["Net"]
    assert row["failures"] == {}
    assert row["differences"] == {
        "evaluation_3": 0.0, "evaluation_1": 0.0, "training_3": 0.0, "training_1": "source refuses",
    }  # fmt: skip
    assert row["reload"]["graph"] == "equal"
    assert row["packages"] == ["tiny_models"]
    assert (row["parameters"], row["vertices"], row["free_batch"]) == (74, 3, True)
    assert row["seconds"]["total"] > 0
    assert row["peak_megabytes"] is None or row["peak_megabytes"] > 50
    assert result.stdout.strip() == f"5 models in {out}, 4 of them with failures"


def test_a_model_that_converts_for_evaluation_alone_is_examined_so(folder, run):
    result, out = run("watched.jsonl", names=("Watched",)), folder / "watched.jsonl"
    row = rows(out)["Watched"]
    assert row["failures"] == {}, result.output
    assert row["evaluation_only"].startswith(
        "TraceError: the model takes a Python value out of a computed tensor (bool)"
    )
    assert row["differences"] == {"evaluation_3": 0.0, "evaluation_1": 0.0}
    assert "| converted for evaluation alone | 1 |" in page([CoverageFile.read(out)])


def test_a_model_of_a_fixed_batch_is_examined_at_it(folder, run):
    result, out = run("paired.jsonl", names=("Paired",)), folder / "paired.jsonl"
    row = rows(out)["Paired"]
    assert row["failures"] == {}, result.output
    assert row["free_batch"] is False
    assert row["differences"] == {"evaluation_2": 0.0, "training_2": 0.0}


@pytest.mark.parametrize(
    ("name", "step", "reason"),
    [
        ("Broken", "build", "ModelReferenceError: 'tiny_models:Broken' failed with the given arguments: ValueError"),
        ("Branching", "convert", "TraceError: "),
        ("Wrong", "compare", "DiffersError: evaluation, batch 3: differs by 5.0e-01 of the largest element"),
        ("Dying", "convert", "the process died (3)"),
    ],
)
def test_the_reason_of_a_failure_is_told(examined, name, step, reason):
    _, out = examined
    assert rows(out)[name]["failures"][step].startswith(reason)
    assert str(out.parent) not in out.read_text()


def test_what_takes_too_long_is_ended(folder, run):
    run("slow.jsonl", "--time-limit", "3", names=("Slow",))
    failures = rows(folder / "slow.jsonl")["Slow"]["failures"]
    assert list(failures.values()) == ["took more than 3 s"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory")
def test_what_is_too_large_for_memory_is_examined_without_weights(folder, run):
    result = run("hungry.jsonl", "--memory-limit", "4", names=("Hungry",))
    row = rows(folder / "hungry.jsonl")["Hungry"]
    assert (row["has_weights"], row["failures"], row["vertices"]) == (False, {}, 3)
    assert "differences" not in row
    assert "structure only, too large for memory" in result.stderr


def test_resuming_skips_what_is_there_and_starts_anew_with_other_releases(folder, run):
    names, out = ("Broken", "Branching"), folder / "resumed.jsonl"
    assert run(out, "--filter", "Bro*", names=names).exit_code == 0
    assert "1 models of tiny_models to examine, 1 examined before" in run(out, "--resume", names=names).stderr
    assert rows(out).keys() == {"Broken", "Branching"}
    text = out.read_text()
    assert (run(out, names=names).exit_code, out.read_text()) == (2, text)
    first, *rest = text.splitlines()
    header = json.loads(first)
    header["header"]["versions"]["torch"] = "1.0"
    out.write_text("\n".join([json.dumps(header), *rest]))
    result = run(out, "--resume", "--filter", "Bro*", names=names)
    assert "starting anew, because torch 1.0 is now " in result.stderr
    assert rows(out).keys() == {"Broken"}


def test_other_files_are_not_resumed(folder, run):
    out = folder / "mine.jsonl"
    out.write_text("mine")
    result = run(out, "--resume", names=("Net",))
    assert result.exit_code == 1
    assert "was not written by `torch-dag coverage`" in result.stderr
    assert out.read_text() == "mine"


def test_unknown_libraries_are_named(run):
    result = run("none.jsonl", source="nothing")
    assert result.exit_code == 1
    assert "no installed plugin lists models under 'nothing'; those listed are tiny_models" in result.stderr
    assert "pip install torch-dag-nothing" in result.stderr


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b"])
def test_shards_that_do_not_exist_are_refused(run, shard):
    result = run("none.jsonl", "--shard", shard)
    assert result.exit_code == 2
    assert "is no part of the models" in result.stderr


def test_small_models_come_first_and_shards_share_them():
    sizes = {"c": 3, "a": 1, "unknown": None, "b": 2, "big": 100}
    assert Choice().select(sizes) == ["a", "b", "c", "big", "unknown"]
    assert Choice(most_parameters=50).select(sizes) == ["a", "b", "c"]
    assert [Choice(shard=(i, 2)).select(sizes) for i in (1, 2)] == [["a", "c", "unknown"], ["b", "big"]]
    assert Choice(filters=("b*", "c")).select(sizes) == ["b", "c", "big"]


def test_the_page_shows_totals_reasons_and_other_figures(examined, tmp_path):
    _, out = examined
    (tmp_path / "other_tool.csv").write_text("model,converted,channels,blocks\nNet,1,0.5,\nBroken,0,,\n")
    written = tmp_path / "page.md"
    arguments = ["coverage-table", str(out), "-o", str(written), "--beside", str(tmp_path / "other_tool.csv")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    text = written.read_text()
    for said in (
        "# Coverage of tiny_models", "all 5 models", "| converted | 2 |", "| evaluation, batch 3 | 2 | 1 | 1 | 0 | 0 |",
        "- 1 in `build`: ModelReferenceError: '...' failed with the given arguments: ValueError: no such thing",
        "## Beside other tool", "| converted | 1 | 1 |", "| `Net` | with weights | 0.00 |",
    ):  # fmt: skip
        assert said in text
    assert str(tmp_path) not in text
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_models_without_weights_are_examined_by_structure(run, folder, examined, tmp_path):
    result, out = run("structures.jsonl", "--structure-only", names=("Net", "Wrong")), folder / "structures.jsonl"
    assert result.exit_code == 0, result.output
    row = rows(out)["Net"]
    assert (row["has_weights"], row["failures"], row["parameters"]) == (False, {}, 74)
    assert row["reload"]["structure of graph"] == "equal"
    assert "differences" not in row or row["differences"] == {}
    assert rows(out)["Wrong"]["failures"] == {}  # what it computes is not compared
    pages = []
    for number, files in enumerate([[out], [out, examined[1]]]):
        written = tmp_path / f"{number}.md"
        done = CliRunner().invoke(app, ["coverage-table", *map(str, files), "-o", str(written)])
        assert done.exit_code == 0, done.output
        pages.append(written.read_text())
    assert "| `Net` | structure | 0.00 |" in pages[0]
    assert "What these models compute is not compared." in pages[0]
    assert "| `Net` | with weights | 0.00 |" in pages[1]  # the row that says more
    assert "| `Net` | structure |" not in pages[1]


def test_a_structure_that_differs_after_loading_is_told(tmp_path):
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    keep_structure(tmp_path, "graph", build_from_unstructured_module(model, torch.randn(2, 4)))
    assert verdicts(tmp_path) == {"structure of graph": "equal"}
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text().replace("[3,4]", "[4,3]").replace("[3, 4]", "[4, 3]"))
    assert verdicts(tmp_path) != {"structure of graph": "equal"}


def test_shares_stand_beside_those_of_another_tool():
    lock = {"share": 0.25, "vertex": "head", "reason": "output: output head"}
    row = {
        "model": "net", "has_weights": True, "failures": {}, "seconds": {"total": 1.0}, "vertices": 3,
        "free_batch": True, "free_size": False, "torch_calls": {}, "channels": {"removable": 0.75, "locked": [lock]},
    }  # fmt: skip
    survey_of_one = CoverageFile(Path("x"), Header("zoo", {}, "a machine", "2030-01-01"), {"net": row}, {"net": 5})
    text = page([survey_of_one], Figures("other", {"net": True}, {"channels": {"net": 0.5}}))
    assert "| channels: median share of FLOPs that can be removed, where both tell | 75.00% | 50.00% |" in text
    assert "| output: output NAME | 1 | 25.00% (`net`) |" in text
    assert text.rstrip().endswith("| 75.00% | 50.00% | 25.00% head: output: output head |  |")


def test_rows_of_different_releases_are_not_mixed(examined, tmp_path):
    _, out = examined
    other = tmp_path / "other.jsonl"
    other.write_text(out.read_text().replace('"torch": "', '"torch": "9', 1))
    result = CliRunner().invoke(app, ["coverage-table", str(out), str(other), "-o", str(tmp_path / "page.md")])
    assert result.exit_code == 1
    assert "do not belong together: torch" in result.stderr
    assert not (tmp_path / "page.md").exists()


class Cancelling(nn.Module):
    """Leaves of large numbers little but their rounding."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 64)

    def forward(self, x):
        return self.layer(x) * 1e6 - self.layer(x) * 1e6 + self.layer(x) * 1e-3


def test_double_precision_tells_rounding_from_errors():
    model, inputs = Cancelling().eval(), torch.randn(2, 64)
    dag = build_from_unstructured_module(model, inputs)
    example = ExampleInputs.of(model, inputs)
    rounding = {"evaluation_3": 1e-3, "evaluation_1": 0.0, "training_3": "source refuses"}
    double = in_double_precision(model, dag, example, rounding)
    assert double == {"evaluation_3": 0.0}
    assert too_far(rounding, double) == ""
    with torch.no_grad():
        next(dag.parameters()).add_(1.0)
    wrong = differences(model, dag, example)
    assert "evaluation, batch 3: differs by" in too_far(wrong, in_double_precision(model, dag, example, wrong))
    assert too_far({"evaluation_1": "InputError: no"}, {}) == "evaluation, batch 1: InputError: no"


def test_reasons_are_grouped_without_what_differs():
    assert group_of("Error: resnet18 has 3 of 'a.b' at conv2d, 1.5e-3", "resnet18") == (
        "Error: MODEL has N of '...' at conv2d, N"
    )
