"""Wrong inputs: one sentence that helps, exit code 2 for wrong use and 1 for failures, and nothing overwritten."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from torch import nn

from torch_dag_core.cli.app import app
from torch_dag_core.conversion.convert import build_from_unstructured_module

LINEAR = ("torch.nn:Linear", "--arg", "4", "--arg", "4")

USAGE = {
    "an unknown command": (("konvert", *LINEAR), "No such command 'konvert'"),
    "no model": (("show",), "Missing argument 'MODEL'"),
    "an unknown option": (("show", *LINEAR, "--sizes", "4"), "No such option"),
    "letters as a size": (("show", *LINEAR, "--size", "a,4"), "'a,4' is no size; write positive integers"),
    "an empty size": (("show", *LINEAR, "--size", "0"), "'0' is no size"),
    "an input without a shape": (("show", *LINEAR, "--input", "x"), "'x' is no input; write [NAME:]SHAPE[:DTYPE]"),
    "an input of an unknown type": (("show", *LINEAR, "--input", "x:2x4:int65"), "is no input"),
    "an input of two shapes": (("show", *LINEAR, "--input", "2x4:2x4"), "is no input"),
    "two ways to give inputs": (("show", *LINEAR, "--size", "4", "--input", "2x4"), "--size and --input both say"),
    "letters as a seed": (("show", *LINEAR, "--seed", "x"), "'x' is not a valid integer"),
    "no output": (("convert", *LINEAR), "Missing option '-o' / '--out'"),
    "an output that exists": (("convert", *LINEAR, "-o", "mine.txt"), "exists already"),
    "an output that is read": (("convert", "net.safetensors", "-o", "net.safetensors", "--force"), "is read by"),
    "inputs that are written": (
        ("convert", *LINEAR, "--inputs", "net.safetensors", "-o", "net.safetensors", "--force"), "is read by",
    ),
    "weights that are written": (
        ("convert", *LINEAR, "--weights", "weights.pt", "-o", "weights.pt", "--force"), "is read by",
    ),
    "a typo in a command": (("shwo", *LINEAR), "did you mean 'show'?"),
    "a typo in a command of a plugin": (("prnue", *LINEAR), "did you mean 'prune'"),
    "an option without its value": (("show", *LINEAR, "--size"), "requires an argument"),
    "a negative size": (("show", *LINEAR, "--size", "-4"), "'-4' is no size"),
    "a size with the batch in other words": (("show", *LINEAR, "--size", "2x4"), "'2x4' is no size"),
    "an input of negative size": (("show", *LINEAR, "--input", "2x-4"), "'2x-4' is no input"),
    "an input whose name is no name": (("show", *LINEAR, "--input", "my input:2x4"), "is no input"),
    "a file and a shape for inputs": (
        ("show", *LINEAR, "--inputs", "x.safetensors", "--input", "2x4"), "--input and --inputs both say",
    ),
    "an unknown precision": (("show", *LINEAR, "--dtype", "int8"), "'int8' is not one of"),
    "nothing and everything said": (("show", *LINEAR, "--quiet", "--verbose"), "contradict each other"),
    "two models": (("show", "net.safetensors", "net.safetensors"), "unexpected extra argument"),
    "an output in a folder that is missing": (("convert", *LINEAR, "-o", "none/new.safetensors"), "there is no folder"),
    "an output that is a folder": (("convert", *LINEAR, "-o", "."), "it is a folder, not a file"),
    "an output below a file": (("convert", *LINEAR, "-o", "mine.txt/new.safetensors"), "is not a folder"),
    "a picture of an unknown kind": (("show", *LINEAR, "-o", "net.gif"), "no plugin writes '.gif'; known endings"),
    "a picture of no kind": (("show", *LINEAR, "-o", "net"), "'files without an ending'"),
    "a comparison without a picture": (("show", *LINEAR, "--before", "net.safetensors"), "--before needs --out"),
    "a depth below nothing": (("flops", *LINEAR, "--depth", "-1"), "-1 is not in the range"),
    "a tolerance in letters": (("compare", *LINEAR, "--tolerance", "small"), "'small' is not a valid float"),
    "a shard beyond the last": (("coverage", "x", "--shard", "3/2", "-o", "new.jsonl"), "'3/2' is no part"),
    "no jobs": (("coverage", "x", "--jobs", "0", "-o", "new.jsonl"), "0 is not in the range"),
    "no time": (("coverage", "x", "--time-limit", "0", "-o", "new.jsonl"), "not in the range"),
    "rows that do not exist": (("coverage-table", "none.jsonl", "-o", "new.md"), "'none.jsonl' does not exist"),
    "a table over its own rows": (("coverage-table", "mine.txt", "-o", "mine.txt"), "exists already"),
    "no rows": (("coverage-table", "-o", "new.md"), "Missing argument 'FILES...'"),
    "a plugin in capitals": (("new-plugin", "Blur"), "'Blur' cannot name a plugin; use lower-case words"),
    "a plugin with a reserved name": (("new-plugin", "core"), "'core' cannot name a plugin"),
    "a plugin that is a keyword": (("new-plugin", "class"), "'class' cannot name a plugin"),
    "a plugin whose folder exists": (("new-plugin", "there"), "'torch-dag-there' exists already"),
    "a plugin in a folder that is missing": (("new-plugin", "blur", "--directory", "none"), "'none' does not exist"),
    "an algorithm without a model": (("run",), "Usage: torch-dag run"),
}  # fmt: skip

FAILURES = {
    "no reference": (("show", "resnet18"), "'resnet18' is no model reference; write timm:NAME"),
    "no such file": (("show", "none.safetensors"), "there is no file 'none.safetensors'"),
    "a file of another kind": (("show", "text.safetensors"), "text.safetensors"),
    "weights as a model": (("show", "weights.pt"), "name their model and pass the file with --weights"),
    "arguments for a saved graph": (("show", "net.safetensors", "--arg", "a=1"), "which takes no arguments"),
    "trained weights for a saved graph": (("show", "net.safetensors", "--pretrained"), "has its own weights"),
    "trained weights that are not offered": (("show", *LINEAR, "--pretrained"), "pass it with --weights"),
    "arguments that do not fit": (("show", "torch.nn:Linear", "--arg", "4"), "out_features"),
    "an unknown device": (("show", *LINEAR, "--device", "abacus"), "the device 'abacus' cannot be used here"),
    "no weights there": (("show", *LINEAR, "--weights", "none.pt"), "there is no file 'none.pt' with weights"),
    "a pickled model": (("show", *LINEAR, "--weights", "model.pt"), "it is a pickle of more than tensors"),
    "a tensor as weights": (("show", *LINEAR, "--weights", "tensor.pt"), "holds no weights: it is a Tensor"),
    "weights of another size": (
        ("show", *LINEAR, "--weights", "wide.pt"), "'weight' is (5, 5) in the file and (4, 4) in the model",
    ),
    "weights of another model": (
        ("show", *LINEAR, "--weights", "other.pt"), "1 missing (weight), 1 unexpected (scale); name the model",
    ),
    "an input of another name": (("show", *LINEAR, "--input", "y:2x4"), "do not fit Linear.forward"),
    "an input of another size": (("show", *LINEAR, "--input", "2x5"), "the model failed while it was traced"),
    "no inputs there": (("show", *LINEAR, "--inputs", "none"), "there is no file 'none' with inputs"),
    "inputs that are text": (("show", *LINEAR, "--inputs", "mine.txt"), "'mine.txt' is no safetensors file"),
    "sizes that a graph does not take": (("flops", "net.safetensors", "--input", "2x5"), "the graph takes (any, 4)"),
    "a model that cannot be converted": (("convert", "models:Branching", "-o", "new.safetensors"), "models.py"),
    "models that differ": (("compare", *LINEAR, "--seed", "7", "--against", "net.safetensors"), "results differ by"),
    "an unknown algorithm": (("run", "squash", *LINEAR), "no algorithm is called 'squash'"),
    "weights as a saved graph": (
        ("show", "state.safetensors"), "holds weights without a graph; name their model and pass",
    ),
    "an empty file": (("show", "empty.safetensors"), "'empty.safetensors' is not a complete safetensors file"),
    "half a file": (("show", "half.safetensors"), "half.safetensors"),
    "a folder as a model": (("show", "torch-dag-there"), "is no model reference"),
    "a module that cannot be imported": (("show", "no_such_module:Net"), "names the module 'no_such_module'"),
    "a module that fails": (("show", "broken:Net"), "which cannot be imported: no luck"),
    "a name that a module does not have": (("show", "torch.nn:Linearr"), "which 'torch.nn' does not have"),
    "a function that makes no model": (("show", "os:getcwd"), "returned a str, not an nn.Module"),
    "a number as a model": (("show", "math:pi"), "is a float, which cannot be called"),
    "a model that takes unknown inputs": (
        ("show", "torch.nn:ReLU"), "nothing tells which inputs ReLU takes; give an example with --size C,H,W",
    ),
    "nothing to compare with": (("compare", *LINEAR, "--against", "none.safetensors"), "there is no file"),
    "photographs for a layer": (("compare", *LINEAR, "--images", "mine.txt"), "photographs suit models of one input"),
    "inputs that are weights": (("show", *LINEAR, "--inputs", "state.safetensors"), "do not fit Linear.forward"),
    "a function that fails": (("convert", "models:failing", "-o", "new.safetensors"), "ValueError: no model today"),
    "rows of another file": (("coverage-table", "mine.txt", "-o", "new.md"), "was not written by `torch-dag coverage`"),
    "settings of an unknown algorithm": (("algorithms", "squash"), "no algorithm is called 'squash'"),
    "a size that a graph does not take": (("flops", "net.safetensors", "--size", "5"), "the graph takes (any, 4)"),
    "an unknown library": (("coverage", "nothing", "-o", "new.jsonl"), "no installed plugin lists models"),
}  # fmt: skip

MODELS = """
from torch import nn


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else x


def failing():
    raise ValueError("no model today")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with files of every kind, which no wrong command may change."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.delitem(sys.modules, "models", raising=False)
    (tmp_path / "models.py").write_text(MODELS)
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "text.safetensors").write_text("no graph, but text that is long enough to be read as one")
    build_from_unstructured_module(nn.Linear(4, 4), torch.ones(2, 4)).save(tmp_path / "net.safetensors")
    (tmp_path / "broken.py").write_text("raise RuntimeError('no luck')")
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "half.safetensors").write_bytes((tmp_path / "net.safetensors").read_bytes()[:-40])
    (tmp_path / "torch-dag-there").mkdir()
    save_file(nn.Linear(4, 4).state_dict(), tmp_path / "state.safetensors")
    torch.save(nn.Linear(4, 4).state_dict(), tmp_path / "weights.pt")
    torch.save(nn.Linear(4, 4), tmp_path / "model.pt")
    torch.save(torch.ones(4), tmp_path / "tensor.pt")
    torch.save(nn.Linear(5, 5).state_dict(), tmp_path / "wide.pt")
    torch.save({"scale": torch.ones(4), "bias": torch.ones(4)}, tmp_path / "other.pt")
    yield tmp_path
    sys.modules.pop("models", None)


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("case", USAGE)
def test_wrong_use_is_told_in_a_sentence(folder, case):
    arguments, said = USAGE[case]
    before = contents(folder)
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.stderr.split())
    assert (result.stdout, "Traceback" in result.output) == ("", False)
    assert contents(folder) == before


@pytest.mark.parametrize("case", FAILURES)
def test_failures_are_told_in_a_sentence(folder, case):
    arguments, said = FAILURES[case]
    before = contents(folder)
    result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert said in line
    assert "Traceback" not in result.output
    assert contents(folder) == before


@pytest.mark.parametrize("name", ["timm", "transformers"])
def test_a_missing_plugin_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("torch_dag_core.cli.references.list_plugins", tuple)
    monkeypatch.setattr("torch_dag_core.cli.references.first_answer", lambda *_, **__: None)
    result = run("show", f"{name}:resnet18")
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: '{name}:resnet18' needs the plugin for {name}, which is not installed; pip install torch-dag-{name}\n"
    )


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_removed(folder, prefix):
    state = {f"{prefix}{name}": tensor for name, tensor in nn.Linear(4, 4).state_dict().items()}
    torch.save({"state_dict": state}, folder / "wrapped.pt")
    assert run("convert", *LINEAR, "--weights", "wrapped.pt", "-o", "new.safetensors").exit_code == 0
    assert run("compare", *LINEAR, "--weights", "wrapped.pt", "--against", "new.safetensors").exit_code == 0


def test_the_user_can_interrupt(monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("torch_dag_core.cli.model_choice.load_model", interrupt)
    result = run("show", *LINEAR)
    assert result.exit_code == 1
    assert result.stderr.strip() == "Aborted!"


@pytest.mark.usefixtures("folder")
class TestGoodInputs:
    """The options that go with a model, where they are right."""

    def test_false_is_false(self):
        shown = run("show", "torch.nn:Linear", "--arg", "4", "--arg", "4", "--arg", "bias=false").stdout
        assert "bias=False" in shown

    def test_inputs_have_names_and_types(self):
        arguments = ("--arg", "9", "--arg", "4", "--input", "input:2x7:int64")
        assert "input: (*, *) int64" in run("show", "torch.nn:Embedding", *arguments).stdout

    def test_inputs_come_from_a_file(self):
        save_file({"input": torch.ones(2, 3, 4)}, "inputs.safetensors")
        assert "input: (*, *, 4)" in run("show", *LINEAR, "--inputs", "inputs.safetensors").stdout

    def test_equal_seeds_give_equal_models(self):
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            assert run("convert", *LINEAR, "--seed", seed, "-o", f"{name}.safetensors").exit_code == 0
        a, b, c = (Path(f"{name}.safetensors").read_bytes() for name in "abc")
        assert a == b != c

    def test_small_files_have_a_size(self):
        said = run("convert", *LINEAR, "-o", "new.safetensors").stdout
        assert "0.0 MB" not in said
        assert " kB)" in said or " B)" in said

    def test_programs_get_json_alone(self):
        found = json.loads(run("convert", *LINEAR, "-o", "new.safetensors", "--json").stdout)
        assert (found["vertices"], found["ops"], found["parameters"]) == (1, {"Linear": 1}, 20)
        assert found["file_bytes"] == Path("new.safetensors").stat().st_size
        found = json.loads(run("compare", "new.safetensors", "--json").stdout)
        assert (found["equal"], found["relative"]) == (True, 0.0)
        found = json.loads(run("flops", "net.safetensors", "--json").stdout)
        assert (found["flops"], found["macs"], found["parameters"], found["activation_bytes"]) == (36, 18, 20, 16)

    def test_lists_are_json_too(self):
        assert json.loads(run("plugins", "--json").stdout)["plugins"][0]["name"] == "core"
        assert isinstance(json.loads(run("algorithms", "--json").stdout)["algorithms"], list)

    def test_quiet_commands_say_nothing(self):
        result = run("convert", *LINEAR, "-o", "new.safetensors", "--quiet")
        assert (result.exit_code, result.output) == (0, "")

    def test_random_weights_are_announced_first(self):
        pytest.importorskip("torchvision")
        result = run("flops", "torchvision:squeezenet1_1", "--size", "3,64,64")
        assert result.stderr.startswith("torchvision:squeezenet1_1 has random weights (seed 0); --pretrained or")
        quiet = run("flops", "torchvision:squeezenet1_1", "--size", "3,64,64", "--quiet")
        assert quiet.output == ""


def test_costs_are_shown_by_module(folder):
    (folder / "models.py").write_text(
        "from torch import nn\ndef net():\n"
        "    return nn.Sequential(nn.Sequential(nn.Linear(4, 8), nn.ReLU()), nn.Linear(8, 2))\n"
    )
    sys.modules.pop("models", None)
    result = run("flops", "models:net", "--json", "--input", "3x4")
    modules = {each["name"]: each for each in json.loads(result.stdout)["modules"]}
    assert modules.keys() == {"", "0", "0.0", "0.1", "1"}
    assert modules["0"]["flops"] == modules["0.0"]["flops"] + modules["0.1"]["flops"]
    assert modules[""]["parameters"] == 4 * 8 + 8 + 8 * 2 + 2
    assert modules[""]["activation_bytes"] == 3 * (8 + 8 + 2) * 4
    text = run("flops", "models:net").stdout
    assert "MACs" in text
    assert "parameters" in text


def test_pipes_and_no_color_get_plain_text(folder):
    environment = {**os.environ, "NO_COLOR": "1", "TORCH_DAG_PLUGINS": "", "FORCE_COLOR": ""}
    code = "from torch_dag_core.cli import main; main()"
    command = f"'{sys.executable}' -c '{code}' flops net.safetensors | head -n 1"
    result = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, env=environment, cwd=folder, check=True
    )
    assert "\x1b" not in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
