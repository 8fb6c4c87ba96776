"""Scores of criteria are checked, and few more slots go than the budget needs."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.testing import awaken
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.errors import PlanError
from torch_dag_pruning.plan.known_criteria import BUILT_IN, looks_at_data
from torch_dag_pruning.plan.plan import Plan
from torch_dag_pruning.statistics.statistics import Statistics


class Block(nn.Module):
    """Windowed attention with relative positions, a wide MLP and a neck, as image encoders of SAM have."""

    def __init__(self, width=24, heads=3):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.rel = nn.Parameter(torch.zeros(heads, 16, 16))

    def forward(self, x):
        b, h, w, c = x.shape
        windows = self.norm1(x).reshape(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        q, k, v = self.qkv(windows).reshape(-1, 16, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y = (((q @ k.transpose(-2, -1)) + self.rel).softmax(-1) @ v).transpose(1, 2).reshape(-1, 16, c)
        y = y.reshape(b, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        x = x + self.proj(y)
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches, self.block1, self.block2 = nn.Conv2d(3, 24, 4, 4), Block(), Block()
        self.neck = nn.Conv2d(24, 16, 1)
        self.out = nn.Conv2d(16, 16, 3, padding=1)

    def forward(self, x):
        x = self.block2(self.block1(self.patches(x).permute(0, 2, 3, 1)))
        return self.out(self.neck(x.permute(0, 3, 1, 2)))


def analysed(model, *shape):
    torch.manual_seed(0)
    x = torch.randn(2, *shape)
    return analyze(build_from_unstructured_module(awaken(model()).eval(), x), x)


@pytest.fixture(scope="module")
def encoder():
    return analysed(Encoder, 3, 32, 32)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 10), nn.Linear(10, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.c(F.relu(self.b(F.relu(self.a(x)))))


@pytest.fixture(scope="module")
def two():
    return analysed(Two, 6)


@dataclass(frozen=True)
class Given:
    """A criterion that returns what it is given."""

    scores: object
    name: str = "given"

    def score(self, analysis):
        return self.scores(analysis) if callable(self.scores) else self.scores


def rising(analysis):
    return {orbit.key: torch.arange(orbit.n) + 1.0 for orbit in analysis.orbits}


def left(analysis, plan):
    return float(analysis.cost(plan.atom_counts(analysis))) / float(analysis.cost())


def largest_slot(analysis):
    """Return the largest share of the FLOPs that goes with one slot."""
    whole = float(analysis.cost())
    return max(1 - float(analysis.cost({orbit.atom.id: orbit.n - 1})) / whole for orbit in analysis.orbits)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (lambda a: {a.orbits[0].key: torch.ones(10)}, r"criterion 'given' gives orbit 'b\.weight:0' no scores"),
        (lambda a: rising(a) | {"z": torch.ones(3)}, "criterion 'given' scores the orbit 'z', which the graph does"),
        (lambda a: rising(a) | {"b.weight:0": torch.ones(3)}, r"a tensor of 8 real numbers, got .* of shape \(3,\)"),
        (lambda a: rising(a) | {"b.weight:0": [1.0] * 8}, r"a tensor of 8 real numbers, got \[1\.0"),
        (lambda a: rising(a) | {"b.weight:0": torch.ones(8) > 0}, "a tensor of 8 real numbers, got torch.bool"),
        (lambda a: rising(a) | {"b.weight:0": torch.tensor([1.0] * 5 + [torch.nan] * 3)},
         r"criterion 'given' gives slot 5 of orbit 'b\.weight:0' the score NaN"),
        ([1.0], "must return a mapping from orbit keys to scores"),
    ],
)  # fmt: skip
def test_scores_are_refused_by_name(two, scores, message):
    with pytest.raises(PlanError, match=message):
        Plan.by_importance(two, Given(scores), 0.5)


@pytest.mark.parametrize("scope", ["global", "isomorphic", "local"])
@pytest.mark.parametrize("target", [0.5, 0.25])
def test_equal_scores_miss_the_budget_by_less_than_a_slot(encoder, scope, target):
    equal = Given(lambda analysis: {orbit.key: torch.ones(orbit.n) for orbit in analysis.orbits})
    plan = Plan.by_importance(encoder, equal, target, scope=scope)
    assert target - largest_slot(encoder) < left(encoder, plan) <= target


def test_equal_scores_thin_out_all_orbits_evenly(encoder):
    equal = Given(lambda analysis: {orbit.key: torch.ones(orbit.n) for orbit in analysis.orbits})
    plan = Plan.by_importance(encoder, equal, 0.5)
    for orbit in encoder.orbits:
        assert abs(len(plan.kept[orbit.key]) / orbit.n - len(plan.kept["block1.fc1.weight:0"]) / 96) <= 1 / orbit.n


@pytest.mark.parametrize("criterion", [c for c in BUILT_IN if c.name != "bn_scale"], ids=lambda c: c.name)
@pytest.mark.parametrize("target", [0.5, 0.25])
def test_an_encoder_like_that_of_sam_keeps_what_was_asked_for(encoder, criterion, target):
    statistics = None
    if looks_at_data(criterion):
        statistics = Statistics.collect(encoder, [torch.randn(8, 3, 32, 32)], loss="outputs")
    plan = Plan.by_importance(encoder, criterion.name, target, statistics=statistics)
    assert target - largest_slot(encoder) < left(encoder, plan) <= target


def test_constant_weights_do_not_empty_the_network():
    model = Encoder()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.01)
    x = torch.randn(2, 3, 32, 32)
    analysis = analyze(build_from_unstructured_module(model.eval(), x), x)
    assert left(analysis, Plan.by_importance(analysis, "l2", 0.5)) > 0.5 - largest_slot(analysis)


@pytest.mark.parametrize("scope", ["global", "isomorphic", "local"])
def test_infinite_scores_protect_slots_and_drop_them(two, scope):
    scores = rising(two)
    scores["a.weight:0"][2], scores["b.weight:0"][7] = torch.inf, -torch.inf
    plan = Plan.by_importance(two, Given(scores), 0.4, scope=scope)
    assert 2 in plan.kept["a.weight:0"]
    assert 7 not in plan.kept["b.weight:0"]
    assert 0.4 - largest_slot(two) < left(two, plan) <= 0.4


def test_slots_with_a_score_of_minus_infinity_go_even_if_the_budget_allows_them(two):
    scores = rising(two)
    scores["b.weight:0"][3] = -torch.inf
    plan = Plan.by_importance(two, Given(scores), 1.0)
    assert plan.kept["b.weight:0"] == (0, 1, 2, 4, 5, 6, 7)
    assert len(plan.kept["a.weight:0"]) == 10


def test_an_orbit_that_is_protected_as_a_whole_stays(two):
    scores = rising(two) | {"a.weight:0": torch.full((10,), torch.inf)}
    plan = Plan.by_importance(two, Given(scores), 0.8)
    assert len(plan.kept["a.weight:0"]) == 10
    with pytest.raises(PlanError, match=r"cannot be reached.*\(the criterion keeps 10 slots in any case\)"):
        Plan.by_importance(two, Given(scores), 0.1)


def test_a_criterion_may_not_drop_a_whole_orbit(two):
    scores = rising(two) | {"a.weight:0": torch.full((10,), -torch.inf)}
    with pytest.raises(PlanError, match=r"drops all but 0 slots of orbit 'a\.weight:0'.*needs at least 1"):
        Plan.by_importance(two, Given(scores), 0.5)


def test_negative_scores_rank_as_all_others(two):
    plan = Plan.by_importance(two, Given({key: score - 100 for key, score in rising(two).items()}), 0.5)
    assert all(slots[-1] == plan.sizes[key] - 1 for key, slots in plan.kept.items())
    assert 0.5 - largest_slot(two) < left(two, plan) <= 0.5


def test_parameters_are_a_budget_too(two):
    plan = Plan.by_importance(two, "l2", keep_parameters=0.5)
    whole = two.parameters_count()
    assert two.parameters_count(plan.atom_counts(two)) <= 0.5 * whole
    both = Plan.by_importance(two, "l2", 0.9, keep_parameters=0.5)
    assert both == plan
    with pytest.raises(PlanError, match="a plan needs a budget: pass keep_flops or keep_parameters"):
        Plan.by_importance(two, "l2")
    with pytest.raises(PlanError, match=r"keep_parameters: 1.00% of the parameters cannot be reached"):
        Plan.by_importance(two, "l2", keep_parameters=0.01)
