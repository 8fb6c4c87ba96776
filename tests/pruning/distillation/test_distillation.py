"""Distances between graphs: 0 between equal ones, the formulas otherwise, and kept channels after a cut."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import GraphError, SettingsError
from torch_dag_pruning import Cut, Distillation, LearnedChannelPruning, Plan, analyze
from torch_dag_pruning.distillation.distillation import noise_to_signal, softened_divergence


@pytest.fixture
def dag():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 3), nn.Flatten(), nn.Linear(80, 4)
    )
    return build_from_unstructured_module(net.eval(), torch.randn(4, 3, 8, 8))


X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_graph_is_at_no_distance_from_itself(dag):
    outputs, distance = Distillation(dag, features={"0": 1.0, "3": 2.0}, temperature=3.0)(dag, X)
    assert torch.equal(outputs, dag(X))
    assert float(distance.detach()) == pytest.approx(0.0, abs=1e-6)


def test_distances_are_the_formulas(dag):
    student = dag.clone()
    with torch.no_grad():
        student.get_vertex_by_name("0").module.weight.mul_(1.1)
    distillation = Distillation(dag, logits=0.5, temperature=2.0, features={"3": 3.0})
    outputs, distance = distillation(student, X)
    wanted, given = dag.get_vertex_by_name("3"), student.get_vertex_by_name("3")
    values = []
    for graph, vertex in ((dag, wanted), (student, given)):
        handle = vertex.module.register_forward_hook(lambda *call: values.append(call[2]))
        graph(X)
        handle.remove()
    t, s = values
    ratio = (s - t).square().sum() / (t - t.mean((0, 2, 3), keepdim=True)).square().sum()
    soft = 4 * F.kl_div((outputs / 2).log_softmax(1), (dag(X) / 2).softmax(1), reduction="batchmean")
    torch.testing.assert_close(distance, 0.5 * soft + 3.0 * ratio)
    distance.backward()
    assert student.get_vertex_by_name("0").module.weight.grad is not None
    assert dag.get_vertex_by_name("0").module.weight.grad is None


def test_a_value_without_a_signal_gives_no_infinity():
    assert float(noise_to_signal(torch.ones(2, 3), torch.ones(2, 3))) == 0.0


def test_the_channels_that_stay_are_compared_after_a_cut(dag):
    analysis = analyze(dag)
    cut = Cut(analysis, Plan.keeping(analysis, {"0.weight:0": [1, 4, 6]}))
    pruned = cut.removed()
    distillation = Distillation(dag, logits=0.0, features={"0": 1.0})
    assert float(distillation(pruned, X, cut=cut)[1].detach()) == pytest.approx(0.0, abs=1e-6)
    with pytest.raises(GraphError, match=r"'0' gives \(4, 3, 6, 6\) in the student .* pass cut="):
        distillation(pruned, X)


def test_it_goes_through_a_training_with_a_cut(dag):
    pruning = LearnedChannelPruning(dag, (3, 8, 8), 0.5, 6)
    pruning.prepare().train()
    optimizer = torch.optim.SGD(pruning.network.parameters(), 1e-2, momentum=0.9)
    pruning.attach(optimizer)
    distillation = Distillation(dag, features={"0": 0.1, "3": 0.1})
    for _ in range(6):
        _, distance = distillation(pruning.network, X, cut=pruning.cut)
        optimizer.zero_grad()
        (distance + pruning.loss()).backward()
        optimizer.step()
        pruning.step()
    assert bool(distance.isfinite())
    assert pruning.cut is not None
    assert not pruning.network.get_vertex_by_name("0").module._forward_hooks


def test_a_module_around_the_graph_is_called(dag):
    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.module, self.calls = dag, 0

        def forward(self, x):
            self.calls += 1
            return self.module(x)

    around = Around()
    Distillation(dag, features={"0": 1.0})(around, X)
    assert around.calls == 1
    with pytest.raises(GraphError, match="there is no graph in Linear"):
        Distillation(dag)(nn.Linear(1, 1), X)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"temperature": 0.0}, SettingsError, "temperature must be above 0"),
        ({"features": {"0": -1.0}}, SettingsError, "the weight of '0' must be at least 0"),
        ({"features": {"nonesuch": 1.0}}, GraphError, "no vertex named 'nonesuch'"),
        ({"features": {"input": 1.0}}, GraphError, "cannot be a feature, because it is an input"),
    ],
)
def test_wrong_settings_are_refused(dag, settings, error, message):
    with pytest.raises(error, match=message):
        Distillation(dag, **settings)


def test_outputs_that_are_no_logits_are_refused():
    with pytest.raises(SettingsError, match=r"returns tuple, not logits; pass logits=0\.0"):
        softened_divergence((torch.ones(1),), (torch.ones(1),), 1.0)
