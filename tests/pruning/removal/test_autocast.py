"""Models with a block of autocast inside are pruned like those without."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.serialization import load
from torch_dag_core.testing import awaken
from torch_dag_pruning import LearnedChannelPruning
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.cut import Cut, masked_model, remove_channels
from torch_dag_pruning.plan.plan import Plan

SHAPE = (3, 12, 12)


class Net(nn.Module):
    """Convolutions of both precisions on one residual stream, attention and two linear layers."""

    def __init__(self, enabled):
        super().__init__()
        self.enabled = enabled
        self.stem, self.norm = nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16)
        self.conv, self.norm2 = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.query, self.value, self.layer_norm = nn.Linear(16, 16), nn.Linear(16, 16), nn.LayerNorm(16)
        self.up, self.down, self.head = nn.Linear(16, 24), nn.Linear(24, 16), nn.Linear(16, 4)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.enabled):
            x = x + torch.relu(self.norm2(self.conv(x)))
            x = x.flatten(2).transpose(1, 2)
            query, value = self.query(x), self.value(x)
            x = x + (query @ query.transpose(1, 2) / 16).softmax(-1) @ value
            x = x + self.down(functional.gelu(self.up(self.layer_norm(x))))
        return self.head(x.float().mean(1))


def converted(enabled=True):
    torch.manual_seed(0)
    model = awaken(Net(enabled)).eval()
    return model, build_from_unstructured_module(model, torch.randn(2, *SHAPE))


def test_a_block_locks_nothing():
    inside, outside = (analyze(converted(enabled)[1]) for enabled in (True, False))
    assert sorted(orbit.n for orbit in inside.orbits) == sorted(orbit.n for orbit in outside.orbits)
    assert inside.cost() == outside.cost()
    assert inside.removable_share == pytest.approx(outside.removable_share)


@pytest.mark.parametrize("seed", range(3))
def test_masked_equals_removed(seed, tmp_path):
    model, dag = converted()
    x = torch.randn(3, *SHAPE)
    assert torch.equal(dag(x), model(x))
    analysis = analyze(dag)
    plan = Plan.random(analysis, 0.6, seed=seed)
    smaller = remove_channels(dag, plan)  # with the proof
    expected = masked_model(dag, plan).eval()(x)
    assert (smaller(x) - expected).abs().max() <= 2**-6 * expected.abs().max()
    assert (dag(x) - expected).abs().max() > 2**-6 * expected.abs().max()
    counts = plan.atom_counts(analysis)
    assert analyze(smaller).cost() == analysis.cost(counts)
    smaller.save(tmp_path / "smaller.safetensors")
    assert torch.equal(load(tmp_path / "smaller.safetensors").eval()(x), smaller(x))


def test_the_proof_sees_a_wrong_weight():
    analysis = analyze(converted()[1])
    cut = Cut(analysis, Plan.random(analysis, 0.6, seed=1))
    smaller = cut.removed()
    with torch.no_grad():
        smaller.get_vertex_by_name("up.weight").module.value[0] += 1
    with pytest.raises(Exception, match="up"):
        cut.prove(smaller)


def test_learned_pruning_reaches_its_target():
    dag = converted()[1]
    pruning = LearnedChannelPruning(dag, SHAPE, 0.5, 4, freeze_at=0.5)
    pruning.prepare().train()
    optimizer = torch.optim.SGD(pruning.network.parameters(), 0.01)
    pruning.attach(optimizer)
    for _ in range(4):
        optimizer.zero_grad()
        (pruning.network(torch.randn(4, *SHAPE)).pow(2).mean() + pruning.loss()).backward()
        optimizer.step()
        pruning.step()
    assert analyze(pruning.finalize()).cost() <= 0.5 * analyze(dag).cost()
