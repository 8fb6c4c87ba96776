"""Scores against oracles that know the layers by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.testing import awaken
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.axes import AxisSolver, Fixed, concat, product
from torch_dag_pruning.cut import remove_channels
from torch_dag_pruning.plan.criteria import ImportanceCriterion, Magnitude, Random, pulled_back
from torch_dag_pruning.plan.known_criteria import criterion_named
from torch_dag_pruning.plan.plan import Plan


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 1)

    def forward(self, x):
        return self.b(F.relu(self.norm(self.a(x))))


@pytest.fixture
def small():
    torch.manual_seed(0)
    model = awaken(Small()).eval()
    x = torch.randn(2, 3, 8, 8)
    return model, analyze(build_from_unstructured_module(model, x), x)


@pytest.mark.parametrize("p", [1, 2])
def test_magnitude_is_the_norm_of_all_that_goes_with_a_slot(small, p):
    model, analysis = small
    parts = [model.a.weight.flatten(1), model.a.bias[:, None], model.norm.weight[:, None], model.norm.bias[:, None]]
    wanted = torch.cat([*parts, model.b.weight.transpose(0, 1).flatten(1)], 1).norm(p, dim=1)
    (score,) = Magnitude(f"l{p}", p).score(analysis).values()
    torch.testing.assert_close(score, wanted.double(), rtol=1e-5, atol=1e-7)


def test_scores_need_no_gradients_and_leave_none(small):
    model, analysis = small
    Magnitude("l2").score(analysis)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("switched_off", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ["l1", "l2", "fpgm", "bn_scale"])
def test_scores_are_the_same_where_gradients_are_switched_off(small, name, switched_off):
    _, analysis = small
    (wanted,) = criterion_named(name).score(analysis).values()
    with switched_off():
        (score,) = criterion_named(name).score(analysis).values()
    assert torch.equal(score, wanted)


def test_a_slot_of_a_product_gets_the_sum_of_its_places():
    solver = AxisSolver()
    heads, width = solver.atom(3, "heads"), solver.atom(4, "width")
    positions = torch.rand(2 * 3 * 4, dtype=torch.float64)
    found = pulled_back(product(Fixed(2), heads, width), positions)
    table = positions.view(2, 3, 4)
    torch.testing.assert_close(found[heads.id], table.sum((0, 2)))
    torch.testing.assert_close(found[width.id], table.sum((0, 1)))


def test_a_slot_that_occurs_twice_in_a_concatenation_gets_both():
    solver = AxisSolver()
    a, b = solver.atom(3, "a"), solver.atom(2, "b")
    positions = torch.rand(8, dtype=torch.float64)
    found = pulled_back(concat(a, b, a), positions)
    torch.testing.assert_close(found[a.id], positions[:3] + positions[5:])
    torch.testing.assert_close(found[b.id], positions[3:5])
    assert pulled_back(Fixed(4), torch.rand(4)) == {}


def test_scores_fit_every_network(network_and_input):
    model, x = network_and_input
    analysis = analyze(build_from_unstructured_module(model, x), x)
    scores = Magnitude("l1", 1).score(analysis)
    assert {key: score.shape for key, score in scores.items()} == {o.key: (o.n,) for o in analysis.orbits}
    assert all(bool((score > 0).all()) for score in scores.values())


@pytest.mark.parametrize("scope", ["global", "local"])
def test_importance_meets_the_budget_on_every_network(network_and_input, scope):
    model, x = network_and_input
    dag = build_from_unstructured_module(model, x)
    analysis = analyze(dag, x)
    plan = Plan.by_importance(analysis, "l2", 0.7, scope=scope)
    kept = analysis.cost(plan.atom_counts(analysis))
    assert kept <= 0.7 * analysis.cost()
    assert plan == Plan.by_importance(analysis, "l2", 0.7, scope=scope)
    assert analyze(remove_channels(dag, plan, analysis=analysis), x).cost() == kept


def test_random_is_the_same_for_the_same_seed(small):
    _, analysis = small
    (one,), (two,), (other,) = (Random(seed=seed).score(analysis).values() for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("name", ["l1", "l2", "random"])
def test_built_in_criteria_are_found_by_name(name):
    criterion = criterion_named(name)
    assert criterion.name == name
    assert isinstance(criterion, ImportanceCriterion)


def test_widths_are_rounded_for_devices_but_heads_are_not():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.proj, self.fc1, self.fc2 = (nn.Linear(*s) for s in ((40, 360), (120, 40), (40, 44), (44, 6)))

        def forward(self, x):
            q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, 5, 24).permute(2, 0, 3, 1, 4).unbind(0)
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            return self.fc2(F.gelu(self.fc1(x + self.proj(y))))

    x = torch.randn(2, 7, 40)
    analysis = analyze(build_from_unstructured_module(awaken(Heads()).eval(), x), x)
    plan = Plan.by_importance(analysis, "random", 0.5, multiple_of=8)
    assert analysis.cost(plan.atom_counts(analysis)) <= 0.5 * analysis.cost()
    counts = {plan.sizes[key]: count for key, count in plan.counts().items()}
    assert counts[24] % 8 == 0
    assert counts[44] % 8 == 0 or counts[44] == 44
    assert 1 <= counts[5] <= 5
