"""Options that every command has, and those that every command with a model has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from dataclasses import dataclass
from typing import get_args

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import nn

from torch_dag_core.algorithms.algorithm import AlgorithmSpec
from torch_dag_core.cli.app import app
from torch_dag_core.cli.model_options import MODES
from torch_dag_core.cli.run import algorithm_command
from torch_dag_core.conversion.convert import Modes, build_from_unstructured_module
from torch_dag_core.serialization import load

LINEAR = ("torch.nn:Linear", "--arg", "4", "--arg", "4")
EVERYWHERE = ("--json", "--quiet", "--verbose", "--help")
WITH_MODEL = (
    "--seed",
    "--device",
    "--dtype",
    "--size",
    "--input",
    "--inputs",
    "--weights",
    "--pretrained",
    "--arg",
    "--modes",
)


@dataclass(frozen=True)
class NoSettings:
    """The config of an algorithm that has nothing to set."""


THINNING = AlgorithmSpec(name="thinning", summary="Thins.", config=NoSettings, create=lambda dag, config: None)
COMMANDS = {name: app.get_command(None, name) for name in app.list_commands(None) if name != "run"}
COMMANDS["run thinning"] = algorithm_command(THINNING)


def options_of(command):
    return {
        flag for each in command.get_params(command.make_context("", [], resilient_parsing=True)) for flag in each.opts
    }


@pytest.mark.parametrize("option", EVERYWHERE)
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has(name, option):
    assert option in options_of(COMMANDS[name])


@pytest.mark.parametrize("option", WITH_MODEL)
@pytest.mark.parametrize("name", [n for n, c in COMMANDS.items() if any(p.metavar == "MODEL" for p in c.params[:1])])
def test_every_command_with_a_model_has(name, option):
    assert option in options_of(COMMANDS[name])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build_from_unstructured_module(nn.Linear(4, 4), torch.ones(2, 4)).save(tmp_path / "net.safetensors")
    return tmp_path


CALLS = {
    "algorithms": (),
    "plugins": (),
    "new-plugin": ("acme-blur",),
    "show": LINEAR,
    "convert": (*LINEAR, "--out", "new.safetensors"),
    "compare": LINEAR,
    "flops": LINEAR,
}


def run(*arguments, code=0):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", CALLS)
class TestEveryCommand:
    def test_prints_one_json_object(self, name):
        result = run(name, *CALLS[name], "--json")
        assert isinstance(json.loads(result.stdout), dict)
        assert result.stderr == ""

    def test_is_quiet(self, name):
        assert run(name, *CALLS[name], "--quiet").output == ""

    def test_is_verbose(self, name):
        assert run(name, *CALLS[name], "--verbose").stderr.startswith("torch-dag-core ")


def test_quiet_and_verbose_contradict_each_other():
    result = CliRunner().invoke(app, ["plugins", "--quiet", "--verbose"])
    assert result.exit_code == 2
    assert "--quiet and --verbose contradict each other" in result.stderr


def test_verbose_tells_the_time_of_each_step(folder):
    said = run("show", *LINEAR, "--verbose").stderr
    assert "loading torch.nn:Linear: " in said
    assert "converting torch.nn:Linear: " in said


def test_show_prints_vertices_as_json(folder):
    found = json.loads(run("show", *LINEAR, "--json").stdout)
    (vertex,) = found["graph"]
    assert (vertex["op"], vertex["inputs"], found["vertices"]) == ("Linear", ["input"], 1)
    assert "in_features=4" in vertex["constants"]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_precision_is_that_of_the_file(folder, dtype):
    name = str(dtype).removeprefix("torch.")
    run("convert", *LINEAR, "--dtype", name, "--out", "new.safetensors")
    assert {tensor.dtype for tensor in load_file("new.safetensors").values()} == {dtype}
    assert json.loads(run("compare", "new.safetensors", "--json").stdout)["equal"]
    assert run("compare", *LINEAR, "--dtype", name, "--against", "new.safetensors").exit_code == 0


def test_saved_graphs_are_cast_with_their_inputs(folder):
    found = json.loads(
        run("compare", "net.safetensors", "--dtype", "float64", "--against", "net.safetensors", "--json").stdout
    )
    assert found["equal"]
    assert (
        json.loads(run("show", "net.safetensors", "--dtype", "float64", "--json").stdout)["inputs"][0]["dtype"]
        == "torch.float64"
    )
    given = ("--input", "3x4")
    assert json.loads(run("compare", "net.safetensors", "--dtype", "float64", *given, "--json").stdout)["equal"]


class DependsInTraining(nn.Linear):
    """Decides by the values of its input, in training alone."""

    def forward(self, x):
        return super().forward(x) * (2 if self.training and x.sum() > 0 else 1)


def test_modes_are_those_of_the_conversion(folder, monkeypatch):
    module = types.ModuleType("of_modes")
    module.Net = DependsInTraining
    monkeypatch.setitem(sys.modules, "of_modes", module)
    net = ("of_modes:Net", "--arg", "4", "--arg", "4")
    refused = run("convert", *net, "--out", "new.safetensors", code=1)
    assert "its path depends on the data" in refused.stderr
    run("convert", *net, "--modes", "eval", "--out", "new.safetensors")
    assert load("new.safetensors").input_spec.evaluation_only
    again = run("show", "new.safetensors", "--modes", "eval", code=1)
    assert "is a graph already; give --modes where its model is converted" in again.stderr


def test_modes_are_those_that_python_offers():
    assert set(MODES) == set(get_args(Modes))


def command_line(*arguments, **environment):
    code = "from torch_dag_core.cli import main; main()"
    kept = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, env={**kept, **environment}, check=False
    )


def test_terminals_without_unicode_get_what_they_can_show(folder):
    net = nn.Sequential()
    net.add_module("größe層", nn.Linear(4, 4))
    build_from_unstructured_module(net, torch.ones(2, 4)).save(folder / "net.safetensors")
    result = command_line("show", "net.safetensors", PYTHONIOENCODING="latin-1")
    assert result.returncode == 0, result.stderr
    assert "größe\\u5c64 = Linear" in result.stdout.decode("latin-1")
    for encoding in ("ascii", "cp437", "latin-1"):
        table = command_line("flops", "net.safetensors", PYTHONIOENCODING=encoding)
        assert (table.returncode, table.stderr) == (0, b"")
        assert "MACs" in table.stdout.decode(encoding)


def test_words_are_not_broken(folder):
    long = "a_layer_with_a_long_name_that_no_column_of_a_narrow_terminal_could_hold"
    net = nn.Sequential()
    net.add_module(long, nn.Linear(4, 4))
    build_from_unstructured_module(net, torch.ones(2, 4)).save(folder / "net.safetensors")
    distributions = {each["distribution"] for each in json.loads(run("plugins", "--json").stdout)["plugins"]}
    assert all(name in command_line("plugins", COLUMNS="40").stdout.decode() for name in distributions)
    for columns in ("40", "80"):
        assert long in command_line("flops", "net.safetensors", COLUMNS=columns).stdout.decode()
    assert max(map(len, command_line("plugins", "--help", COLUMNS="80").stdout.decode().splitlines())) <= 80
