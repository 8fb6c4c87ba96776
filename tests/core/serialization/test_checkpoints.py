"""Checkpoints between a model and its graph, both ways."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import torch_dag_core as td


class Net(nn.Module):
    """Has a parameter of its own, a tied weight and a layer that nothing calls."""

    def __init__(self, width=4):
        super().__init__()
        self.token = nn.Parameter(torch.randn(width))
        self.first, self.second = nn.Linear(3, width), nn.Linear(width, width)
        self.third = nn.Linear(width, width)
        self.third.weight = self.second.weight
        self.norm = nn.BatchNorm1d(width)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.third(self.second(self.norm(self.first(x) + self.token)).relu())


X = torch.randn(5, 3)


@pytest.fixture
def source():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def dag():
    torch.manual_seed(1)
    return td.build_from_unstructured_module(Net().eval(), X)


def snapshot(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def unchanged(module, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
@pytest.mark.parametrize("nesting", [None, "state_dict", "model"])
def test_weights_of_the_source_go_into_the_graph(source, dag, prefix, nesting):
    state = {f"{prefix}{name}": tensor for name, tensor in source.state_dict().items()}
    report = td.load_checkpoint(dag, state if nesting is None else {nesting: state, "epoch": 3})
    assert report.matches
    assert str(report) == "every tensor matches"
    assert torch.equal(dag(X), source(X))


def test_weights_of_a_file_go_into_the_graph(source, dag, tmp_path):
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    td.load_checkpoint(dag, tmp_path / "weights.pt")
    assert torch.equal(dag(X), source(X))
    save_file({n: t for n, t in snapshot(dag).items() if n != "third.weight"}, tmp_path / "weights.safetensors")
    td.load_checkpoint(dag, tmp_path / "weights.safetensors")
    assert torch.equal(dag(X), source(X))


def test_weights_of_the_graph_go_into_the_source(source, dag):
    unused = source.unused.weight.clone()
    td.load_checkpoint(source, dag)
    assert torch.equal(dag(X), source(X))
    assert torch.equal(source.unused.weight, unused)
    with pytest.raises(td.CheckpointError, match=r"2 missing \(unused.weight, unused.bias\)"):
        td.load_checkpoint(source, dag.state_dict())


def test_what_does_not_match_is_listed_and_nothing_is_loaded(source, dag):
    state = source.state_dict()
    state["frist.weight"] = state.pop("first.weight")
    state["stranger"] = torch.zeros(9)
    state["norm.bias"] = torch.zeros(7)
    before = snapshot(dag)
    with pytest.raises(td.CheckpointError) as caught:
        td.load_checkpoint(dag, state)
    report = caught.value.report
    assert (report.missing, set(report.unexpected)) == (("first.weight",), {"frist.weight", "stranger"})
    assert report.wrong_shapes == {"norm.bias": ((7,), (4,))}
    assert report.candidates("first.weight") == ("frist.weight",)
    assert report.candidates("frist.weight") == ("first.weight",)
    assert report.candidates("stranger") == ()
    for text in ("'norm.bias' is (7,) in the file and (4,) in the model", "'first.weight' may be 'frist.weight'"):
        assert text in str(caught.value)
    assert unchanged(dag, before)


def test_comparing_changes_nothing(source, dag):
    before = snapshot(dag)
    assert td.compare_checkpoint(dag, source).matches
    assert not td.compare_checkpoint(source, {}).matches
    assert unchanged(dag, before)


def test_the_checkpoint_of_the_source_of_a_smaller_graph_says_what_to_do(dag):
    with pytest.raises(td.CheckpointError, match="apply the saved plan"):
        td.load_checkpoint(dag, Net(width=6))


def test_a_layer_of_a_name_unlike_any_other_is_found_by_its_shape():
    model = nn.ModuleDict({"classifier": nn.Linear(3, 9, bias=False), "stem": nn.Linear(2, 3, bias=False)})
    state = {"zz": torch.zeros(9, 3), "stem.weight": torch.zeros(3, 2)}
    assert td.compare_checkpoint(model, state).candidates("classifier.weight") == ("zz",)
