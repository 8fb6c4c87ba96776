"""Checkpoints go both ways where weights are shared between functions, and where names cannot be kept."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from torch_dag_core.conversion.convert import build_from_unstructured_module


class Tied(nn.Module):
    def __init__(self, layer, function):
        super().__init__()
        self.inner, self.function = nn.ModuleDict({"layer": layer}), function

    def forward(self, x):
        return self.function(self.inner["layer"], x)


def tokens(batch):
    return torch.randint(0, 10, (batch, 4))


def rows(batch):
    return torch.randn(batch, 6)


TIED = {
    "head by a function": (lambda: nn.Embedding(10, 6), lambda m, x: functional.linear(m(x), m.weight), tokens),
    "head by a product": (lambda: nn.Embedding(10, 6), lambda m, x: m(x) @ m.weight.T, tokens),
    "autoencoder": (lambda: nn.Linear(6, 3), lambda m, x: functional.linear(m(x), m.weight.t()), rows),
    "penalty": (lambda: nn.Linear(6, 3), lambda m, x: (m(x), m.weight.square().sum()), rows),
    "codebook": (lambda: nn.Embedding(10, 6), lambda m, x: m(torch.cdist(x, m.weight).argmin(1)), rows),
    "two functions": (
        lambda: nn.Linear(6, 6), lambda m, x: functional.linear(x, m.weight) + functional.linear(x, m.weight.T), rows,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TIED)
def test_a_weight_with_several_readers_has_one_key(reloaded, name):
    layer, function, inputs = TIED[name]
    model = Tied(layer(), function)
    dag = reloaded(model, inputs, relative=1e-5)
    used = {key: value for key, value in model.state_dict().items() if key not in dag.provenance["unused_keys"]}
    assert dag.state_dict().keys() == used.keys()
    model.load_state_dict(dag.state_dict(), strict=used == model.state_dict().keys())
    trained = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(2)
    dag.load_state_dict(trained.state_dict())
    x = inputs(3)
    torch.testing.assert_close(dag.eval()(x), trained.eval()(x))


def test_weights_that_were_taken_apart_have_a_key_each():
    dag = build_from_unstructured_module(_head(), tokens(2))
    head = dag.inner_vertices[-1]
    dag.replace_module(head, nn.Linear(6, 10, bias=False))
    state = {key: value.clone() for key, value in dag.state_dict().items()}
    assert sorted(state) == ["inner.layer.weight", f"{head.name}.weight"]
    with torch.no_grad():
        for parameter in dag.parameters():
            parameter.zero_()
    dag.load_state_dict(state)
    assert all(torch.equal(value, state[key]) for key, value in dag.state_dict().items())


def _head():
    layer, function, _ = TIED["head by a function"]
    return Tied(layer(), function)


class InTheWay(nn.Module):
    """Has submodules named like methods of graphs and like nothing that a vertex may be called."""

    def __init__(self):
        super().__init__()
        self.outputs, self.clone, self.summary = nn.Linear(6, 6), nn.Linear(6, 6), nn.BatchNorm1d(6)
        self.parts = nn.ModuleDict({"two words": nn.Linear(6, 6), "verify": nn.Sequential(nn.Linear(6, 6))})
        self.vertices = nn.Parameter(torch.randn(6))

    def forward(self, x):
        x = self.summary(self.clone(self.outputs(x))) * self.vertices
        for part in self.parts.values():
            x = part(x)
        return x


@pytest.mark.parametrize("nested", [False, True])
def test_names_that_no_vertex_may_have_are_kept_as_keys(reloaded, nested):
    model = nn.Sequential(InTheWay(), InTheWay()) if nested else InTheWay()
    dag = reloaded(model, rows, relative=1e-6)
    assert dag.state_dict().keys() == model.state_dict().keys()
    model.load_state_dict(dag.state_dict())


def test_keys_in_a_hierarchy(faithful):
    model = nn.Sequential(InTheWay(), nn.Sequential(InTheWay(), nn.Linear(6, 6)))
    dag = faithful(model, rows, relative=1e-6, keep_hierarchy=True)
    for graph in (dag, dag.flatten()):
        assert graph.state_dict().keys() == model.state_dict().keys()
        graph.load_state_dict(model.state_dict())


def test_keys_of_a_graph_inside_a_model():
    dag = build_from_unstructured_module(_head(), tokens(2))
    model, source = nn.Sequential(dag, nn.ReLU()), nn.Sequential(_head(), nn.ReLU())
    assert model.state_dict().keys() == source.state_dict().keys()
    model.load_state_dict(source.state_dict())
    torch.testing.assert_close(model(tokens(3).fill_(1)), source(tokens(3).fill_(1)))
