"""Criteria that look at data, against what removal and recovery really cost."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.testing import awaken
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.cut import Cut
from torch_dag_pruning.errors import CalibrationError, PlanError
from torch_dag_pruning.plan.data_criteria import BY_DATA, Surgeon, Variance
from torch_dag_pruning.plan.plan import Plan
from torch_dag_pruning.plan.slot_columns import Reading, readings
from torch_dag_pruning.plan.surgeon import PANEL, removal_costs
from torch_dag_pruning.statistics.statistics import Statistics

EVERYWHERE = 10**6


class Points(nn.Module):
    """Slots are read by a 1x1 convolution."""

    shape = (3, 5, 5)

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 10, 3, padding=1), nn.Conv2d(10, 4, 1)

    def forward(self, x):
        return self.b(F.relu(self.a(x)))


class Patches(Points):
    """By a dilated, strided one of 3x3, behind a batch norm."""

    def __init__(self):
        super().__init__()
        self.norm, self.b = nn.BatchNorm2d(10), nn.Conv2d(10, 4, 3, padding=2, dilation=2, stride=2)

    def forward(self, x):
        return self.b(F.relu(self.norm(self.a(x))))


class Groups(Points):
    """By a grouped one, where a slot has a channel in every group."""

    def __init__(self):
        super().__init__()
        self.b = nn.Conv2d(10, 4, 3, padding=1, groups=2)


class Transposed(Points):
    """By a transposed one."""

    def __init__(self):
        super().__init__()
        self.b = nn.ConvTranspose2d(10, 4, 3, stride=2)


class Joined(Points):
    """By a linear layer that reads other slots too."""

    def __init__(self):
        super().__init__()
        self.a, self.more, self.b = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 5, 1), nn.Linear(11, 4)

    def forward(self, x):
        return self.b(F.relu(torch.cat([self.a(x), self.more(x)], 1)).flatten(2).transpose(1, 2))


NETWORKS = [Points, Patches, Groups, Transposed, Joined]


@pytest.fixture
def images():
    return torch.randn(60, 3, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def analysed(network, images):
    torch.manual_seed(0)
    model = awaken(network()).eval().double()
    return analyze(build_from_unstructured_module(model, images[:2]), images[:2])


@pytest.mark.parametrize("network", NETWORKS)
@torch.no_grad()
def test_costs_add_up_to_the_error_after_recovery(network, images):
    analysis = analysed(network, images)
    statistics = Statistics.collect(analysis, [images], positions=EVERYWHERE)
    orbit = next(orbit for orbit in analysis.orbits if orbit.name == "a")
    order, costs = removal_costs(readings(analysis, statistics, orbit), orbit.n, damping=0.0, relative=False)
    assert sorted(order) == list(range(orbit.n))
    count = orbit.n // 2
    cut = Cut(analysis, Plan.keeping(analysis, {orbit.key: order[count:]}))
    recovery = cut.recover(
        cut.removed(), [images], alpha=0.0, held_out=0.0, positions=EVERYWHERE, batch_norm="keep", target="local"
    )
    wanted, given = analysis.dag(images), recovery.dag(images)
    channel = 2 if network is Joined else 1
    places = wanted.numel() / wanted.shape[channel]
    error = float((wanted - given).square().sum()) / places
    assert error == pytest.approx(float(costs[:count].sum()), rel=1e-9)
    assert float(costs[:count].sum()) > 0


@pytest.mark.parametrize("network", [Points, Joined])  # with one column a slot; several columns vary together
@torch.no_grad()
def test_variance_is_the_error_after_folding_the_mean(network, images):
    analysis = analysed(network, images)
    statistics = Statistics.collect(analysis, [images], positions=EVERYWHERE)
    orbit = next(orbit for orbit in analysis.orbits if orbit.name == "a")
    scores = Variance(statistics).score(analysis)[orbit.key]
    spread = readings(analysis, statistics, orbit)[0].spread
    for slot in (0, 3):
        kept = [other for other in range(orbit.n) if other != slot]
        cut = Cut(analysis, Plan.keeping(analysis, {orbit.key: kept}))
        recovery = cut.recover(cut.removed(), [images], method="mean", held_out=0.0, positions=EVERYWHERE)
        wanted, given = analysis.dag(images), recovery.dag(images)
        error = float((wanted - given).square().sum()) / (wanted.numel() / 4)
        assert error == pytest.approx(float(scores[slot]) * spread, rel=1e-9)


def test_surgeons_remove_what_others_can_stand_for_first(images):
    analysis = analysed(Points, images)
    with torch.no_grad():
        weight, bias = analysis.dag.a.weight, analysis.dag.a.bias
        weight[7], bias[7] = 2 * weight[2], 2 * bias[2]
    statistics = Statistics.collect(analysis, [images], positions=EVERYWHERE)
    (score,) = Surgeon(statistics).score(analysis).values()
    assert int(score.argmin()) in (2, 7)
    assert float(score.min()) < 1e-4 * float(score.sort().values[1])


@pytest.mark.parametrize("criterion", BY_DATA, ids=lambda criterion: criterion.name)
@pytest.mark.parametrize("scope", ["global", "isomorphic", "local"])
@pytest.mark.parametrize("per", [None, "flops", "parameters"])
def test_plans_stay_within_the_budget(images, criterion, scope, per):
    analysis = analysed(Joined, images)
    statistics = Statistics.collect(analysis, [images], loss="outputs")
    plan = Plan.by_importance(analysis, criterion.name, 0.6, statistics=statistics, scope=scope, per=per)
    assert float(analysis.cost(plan.atom_counts(analysis))) <= 0.6 * float(analysis.cost())


@pytest.mark.parametrize("criterion", BY_DATA, ids=lambda criterion: criterion.name)
def test_data_is_asked_for(images, criterion):
    with pytest.raises(PlanError, match=f"criterion '{criterion.name}' looks at data; pass statistics="):
        Plan.by_importance(analysed(Points, images), criterion, 0.5)


def test_gradients_are_asked_for(images):
    analysis = analysed(Points, images)
    with pytest.raises(CalibrationError, match="hold no gradients"):
        Plan.by_importance(analysis, "fisher", 0.5, statistics=Statistics.collect(analysis, [images]))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"per": "hour"}, "per must be one of None, 'flops', 'parameters', 'memory', 'latency', got 'hour'"),
        ({"scope": "far"}, "there is no scope 'far'"),
    ],
)
def test_choices_are_checked(images, choice, message):
    with pytest.raises(PlanError, match=message):
        Plan.by_importance(analysed(Points, images), "l2", 0.5, **choice)


def test_costs_are_exact_for_more_columns_than_are_updated_at_once():
    random = torch.Generator().manual_seed(0)
    slots, taps, outs = 40, 3, 7
    weight = torch.randn(outs, slots * taps, generator=random, dtype=torch.float64)
    mixing = torch.randn(slots * taps, slots * taps, generator=random, dtype=torch.float64)
    columns = torch.arange(slots * taps).reshape(slots, taps)
    covariance = mixing @ mixing.T
    reading = Reading(torch.arange(slots), columns, weight, covariance, covariance.diagonal())
    order, costs = removal_costs([reading], slots, damping=0.0, relative=False)
    for count in (1, PANEL // taps, PANEL // taps + 5, slots):
        gone = columns[order[:count]].flatten()
        among_gone = torch.linalg.inv(covariance)[gone][:, gone]
        error = (weight[:, gone] @ torch.linalg.solve(among_gone, weight[:, gone].T)).trace()
        assert float(costs[:count].sum()) == pytest.approx(float(error), rel=1e-8)


class Queries(nn.Module):
    """The width of queries and keys is read by no layer with weights."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x):
        return self.o(F.softmax(self.q(x) @ self.k(x).transpose(1, 2), -1) @ self.v(x))


def test_surgeons_score_slots_that_no_layer_reads_by_their_weights():
    torch.manual_seed(0)
    tokens = torch.randn(20, 5, 6, dtype=torch.float64)
    model = Queries().double().eval()
    analysis = analyze(build_from_unstructured_module(model, tokens[:2]), tokens[:2])
    scores = Surgeon(Statistics.collect(analysis, [tokens], positions=EVERYWHERE)).score(analysis)
    unread = next(orbit for orbit in analysis.orbits if orbit.name == "q")
    state = model.state_dict()
    parts = [state[name] for name in ("q.weight", "k.weight", "q.bias", "k.bias")]
    squares = sum(part.reshape(8, -1).square().sum(1) for part in parts)
    torch.testing.assert_close(scores[unread.key], squares / squares.sum())
