"""Models named on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from torch_dag_core.cli.references import Arguments, load_model, load_weights
from torch_dag_core.errors import ModelReferenceError

literals = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner),
    max_leaves=5,
)


@given(
    positional=st.lists(literals),
    options=st.dictionaries(st.from_regex("[a-z][a-z0-9_]{0,8}", fullmatch=True), literals),
)
def test_literals_are_read_back(positional, options):
    texts = [*map(repr, positional), *(f"{key}={value!r}" for key, value in options.items())]
    assert Arguments.parse(texts) == Arguments(tuple(positional), options)


@pytest.mark.parametrize("text", ["relu", "a b", "1.2.3", "path/to/file", "[1, 2"])
def test_what_is_no_literal_is_a_string(text):
    assert Arguments.parse([text, f"key={text}"]) == Arguments((text,), {"key": text})


def test_a_callable_is_called_with_the_arguments():
    model = load_model("torch.nn:Linear", ["3", "out_features=5", "bias=False"])
    assert (model.in_features, model.out_features, model.bias) == (3, 5, None)


def test_a_module_in_the_current_folder_is_found(tmp_path, monkeypatch):
    (tmp_path / "a_local_model.py").write_text(
        "from torch import nn\nclass Nest:\n    build = staticmethod(lambda: nn.ReLU())\nready = nn.Sequential()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    assert isinstance(load_model("a_local_model:Nest.build"), nn.ReLU)
    assert load_model("a_local_model:ready") is sys.modules["a_local_model"].ready
    del sys.modules["a_local_model"]


@pytest.mark.parametrize(
    ("reference", "arguments", "message"),
    [
        ("resnet18", [], "'resnet18' is no model reference; write timm:NAME"),
        ("torch.nn:", [], "is no model reference"),
        ("no_such_module:build", [], "names the module 'no_such_module', which cannot be imported"),
        ("torch.nn:Lineal", [], "names 'Lineal', which 'torch.nn' does not have"),
        ("torch.nn:Linear", ["3"], "failed with the given arguments: TypeError: .*out_features"),
        ("builtins:dict", [], "returned a dict, not an nn.Module"),
        ("math:pi", [], "is a float, which cannot be called"),
        ("nowhere/model.safetensors", [], "there is no file 'nowhere/model.safetensors'"),
    ],
)
def test_a_reference_that_names_no_model_is_refused(reference, arguments, message):
    with pytest.raises(ModelReferenceError, match=message):
        load_model(reference, arguments)


def test_a_saved_graph_takes_no_arguments(tmp_path):
    path = tmp_path / "model.safetensors"
    path.touch()
    with pytest.raises(ModelReferenceError, match="is a saved graph, which takes no arguments"):
        load_model(str(path), ["width=3"])


def test_torchvision_is_named_when_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ModelReferenceError, match=r"needs torchvision, .*pip install torchvision"):
        load_model("torchvision:resnet18")


def test_torchvision_models_are_built_by_name():
    models = pytest.importorskip("torchvision.models")
    assert load_model("torchvision:resnet18", ["num_classes=7"]).fc.out_features == 7
    with pytest.raises(ModelReferenceError, match="torchvision has no model 'resnet19'"):
        load_model("torchvision:resnet19")
    with pytest.raises(ModelReferenceError, match="takes only key=value arguments, not 3"):
        load_model("torchvision:resnet18", ["3"])
    assert "resnet18" in models.list_models()


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight


@pytest.fixture
def state():
    return {"weight": torch.full((2, 3), 0.5), "bias": torch.arange(2.0)}


@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model"])
def test_torch_files_are_read(tmp_path, state, key):
    torch.save(state if key is None else {key: state, "epoch": 3}, tmp_path / "weights.pt")
    model = load_model("torch.nn:Linear", ["3", "2"], tmp_path / "weights.pt")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())


def test_safetensors_files_are_read(tmp_path, state):
    save_file(state, tmp_path / "weights.safetensors")
    model = load_model("torch.nn:Linear", ["3", "2"], tmp_path / "weights.safetensors")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in state.items())


def test_tied_weights_may_be_stored_once(tmp_path):
    stored = {name: value for name, value in Tied().state_dict().items() if name != "second.weight"}
    save_file(stored, tmp_path / "weights.safetensors")
    model = Tied()
    load_weights(model, tmp_path / "weights.safetensors")
    assert torch.equal(model.second.weight, stored["first.weight"])


def test_weights_of_another_model_are_refused(tmp_path, state):
    save_file({**state, **{f"extra{i}": torch.zeros(1) for i in range(7)}}, tmp_path / "weights.safetensors")
    message = r"1 missing \(scale\), 7 unexpected \(extra0, extra1, extra2, extra3, extra4, \.\.\.\)"
    model = nn.Linear(3, 2)
    model.register_parameter("scale", nn.Parameter(torch.ones(1)))
    with pytest.raises(ModelReferenceError, match=message):
        load_weights(model, tmp_path / "weights.safetensors")


def test_weights_of_another_size_are_refused(tmp_path, state):
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(ModelReferenceError, match=r"do not fit the model: (.|\n)*size mismatch"):
        load_weights(nn.Linear(4, 2), tmp_path / "weights.safetensors")


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path("touched-by-a-pickle"),))


def test_nothing_is_executed_by_reading_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Payload()}, tmp_path / "weights.pt")
    with pytest.raises(ModelReferenceError, match="cannot read weights"):
        load_weights(nn.Linear(3, 2), tmp_path / "weights.pt")
    assert not Path("touched-by-a-pickle").exists()
