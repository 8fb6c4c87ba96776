"""Models that draw random numbers in evaluation: the masked and the removed graph get the same ones."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import torch_dag_core as td
import torch_dag_pruning as tdp
from torch_dag_core.testing import awaken


class Net(nn.Module):
    """A stem of 8 channels, a function that draws, and a head."""

    def __init__(self, function, classes=5):
        super().__init__()
        self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, classes)
        self.more = nn.Linear(8, 8)
        self.function = function

    def forward(self, x):
        return self.head(self.function(self, torch.relu(self.stem(x))))


def reparametrised(net, x):
    return x + torch.exp(0.1 * net.more(x)) * torch.randn_like(x)


def gumbel_gate(net, x):
    return x * F.gumbel_softmax(net.more(x), dim=1)


def gumbel_choice(net, x):
    return x * F.gumbel_softmax(net.more(x).unflatten(1, (4, 2)), dim=2, hard=True).flatten(1)


DRAWING = {
    "dropout": lambda _, x: F.dropout(x, 0.4, training=True),
    "alpha_dropout": lambda _, x: F.alpha_dropout(x, 0.4, training=True),
    "dropout1d": lambda net, x: F.dropout1d(x[:, :, None].expand(-1, -1, 3), 0.4, training=True).mean(2) + net.more(x),
    "noise": lambda _, x: x + torch.randn_like(x),
    "noise_of_one_sample": lambda _, x: x + torch.randn(8),
    "noise_of_one_channel": lambda _, x: x * torch.rand(len(x), 1),
    "mask": lambda _, x: x * (torch.rand(x.shape) < 0.5),
    "bernoulli": lambda net, x: x * torch.bernoulli(torch.sigmoid(net.more(x))),
    "reparametrised": reparametrised,
    "normal": lambda net, x: torch.normal(x, torch.sigmoid(net.more(x))),
    "rrelu": lambda _, x: F.rrelu(x - 0.5, training=True),
    "gumbel_gate": gumbel_gate,
    "gumbel_choice": gumbel_choice,
}


def proof(dag, seed=0, dtype=torch.float64):
    analysis = tdp.analyze(dag)
    plan = tdp.Plan.random(analysis, 0.6, seed)
    return analysis, tdp.removal_proof(analysis, plan, tdp.Cut(analysis, plan).removed(), dtype=dtype)


@pytest.mark.parametrize("name", DRAWING)
def test_both_graphs_get_the_same_draws(name):
    torch.manual_seed(0)
    dag = td.build_from_unstructured_module(awaken(Net(DRAWING[name])).eval(), torch.randn(3, 6))
    for seed in range(3):
        analysis, found = proof(dag, seed)
        assert found.worst < 1e-12, str(found)
        assert not analysis.orbits or found.effect > 1e-3


@pytest.mark.parametrize("name", ["dropout", "noise", "noise_of_one_sample", "mask", "reparametrised"])
def test_channels_with_draws_are_prunable(name):
    dag = td.build_from_unstructured_module(Net(DRAWING[name]).eval(), torch.randn(3, 6))
    assert any(orbit.key == "stem.weight:0" for orbit in tdp.analyze(dag).orbits)


def test_the_effect_is_that_of_pruning_alone():
    """Removing slots that nothing reads changes nothing, whatever is drawn."""
    dag = td.build_from_unstructured_module(Net(DRAWING["noise"]).eval(), torch.randn(3, 6))
    with torch.no_grad():
        dag.get_vertex_by_name("head").module.weight[:, :4] = 0
    analysis = tdp.analyze(dag)
    plan = tdp.Plan.keeping(analysis, {"stem.weight:0": range(4, 8)})
    found = tdp.removal_proof(analysis, plan, tdp.Cut(analysis, plan).removed(), dtype=torch.float64)
    assert found.effect < 1e-12


def test_a_proof_leaves_the_random_state_alone():
    dag = td.build_from_unstructured_module(Net(DRAWING["dropout"]).eval(), torch.randn(3, 6))
    analysis = tdp.analyze(dag)
    inputs, plan = analysis.inputs, tdp.Plan.random(analysis, 0.5, 0)
    before = torch.get_rng_state()
    cut = tdp.Cut(analysis, plan)
    cut.prove(cut.removed(), inputs)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_wrong_removal_is_still_found():
    dag = td.build_from_unstructured_module(awaken(Net(DRAWING["noise"])).eval(), torch.randn(3, 6))
    analysis = tdp.analyze(dag)
    cut = tdp.Cut(analysis, tdp.Plan.random(analysis, 0.5, 0))
    removed = cut.removed()
    with torch.no_grad():
        removed.get_vertex_by_name("head").module.weight[0, 0] += 1
    with pytest.raises(tdp.RemovalMismatchError, match="'head' differs"):
        cut.prove(removed)


class TwoPaths(nn.Module):
    """Draws in the middle of a convolutional network, by channel and by pixel."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(6, 4)

    def forward(self, x):
        x = F.dropout2d(torch.relu(self.norm(self.a(x))), 0.3, training=True)
        x = self.b(x * torch.rand(len(x), 1, *x.shape[2:]))
        return self.head(F.dropout(x, 0.2, training=True).mean((2, 3)))


def test_draws_by_channel_and_by_pixel():
    torch.manual_seed(0)
    dag = td.build_from_unstructured_module(awaken(TwoPaths()).eval(), torch.randn(2, 3, 8, 8))
    analysis, found = proof(dag)
    assert len(analysis.orbits) == 2
    assert found.worst < 1e-12
