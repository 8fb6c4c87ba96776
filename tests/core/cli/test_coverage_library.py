"""``torch-dag coverage FILE.toml``: models that a file lists, and what is said of a file that lists none."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from torch_dag_core.cli.app import app
from torch_dag_core.cli.coverage.record import CoverageFile

MODELS = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "listed_models.py").write_text(MODELS)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def run(out, *, source):
    return CliRunner().invoke(app, ["coverage", source, "-o", str(out)])


LISTED = """
[[model]]
name = "net"
reference = "listed_models:Net"
inputs = ["3x4"]

[[model]]
name = "linear"
distribution = "torch"
reference = "torch.nn:Linear"
arguments = ["4", "6", "bias=false"]
inputs = ["x:2x5x4"]
"""


def test_a_file_lists_models_with_arguments_and_inputs(folder):
    (folder / "two_models.toml").write_text(LISTED.replace("x:2x5x4", "input:2x5x4"))
    result = run(folder / "listed.jsonl", source=str(folder / "two_models.toml"))
    assert result.exit_code == 0, result.output
    found = CoverageFile.read(folder / "listed.jsonl")
    assert (found.header.source, "torch" in found.header.versions) == ("two models", True)
    assert {name: row["inputs"] for name, row in found.rows.items()} == {"net": ["4"], "linear": ["5x4"]}
    assert found.rows["linear"]["parameters"] == 24
    assert all(row["failures"] == {} for row in found.rows.values())


@pytest.mark.parametrize(
    ("text", "said"),
    {
        "": "lists no models",
        "[[model]": "is no TOML",
        "model = 3": "lists no models",
        '[[model]]\nname = "net"': "is wrong in 'reference'",
        '[[model]]\nname = 3\nreference = "a:b"\nsize = 4': "is wrong in 'size', 'name'",
        '[[model]]\nname = "net"\nreference = "a:b"\narguments = "x"': "is wrong in 'arguments'",
        '[[model]]\nname = "net"\nreference = "a:b"\ninputs = ["2xx"]': "has the input '2xx'",
        2 * '[[model]]\nname = "net"\nreference = "a:b"\n': "has two models 'net'",
    }.items(),
)
def test_a_file_that_lists_no_models_says_what_is_wrong(folder, text, said):
    (folder / "wrong.toml").write_text(text)
    result = run(folder / "wrong.jsonl", source=str(folder / "wrong.toml"))
    assert result.exit_code == 1
    assert said in " ".join(result.output.split())
    assert not (folder / "wrong.jsonl").exists()


def test_a_file_that_is_not_there_is_named(folder):
    result = run(folder / "missing.jsonl", source=str(folder / "missing.toml"))
    assert result.exit_code == 1
    assert "cannot be read: No such file" in " ".join(result.output.split())
