"""Masks, expected sizes and losses against their formulas, and the budget against trying all thresholds."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_pruning import Masking, PlanError, analyze
from torch_dag_pruning.learning.gates import Gates
from torch_dag_pruning.learning.penalties import BlockDistillation, annealed, excess, moved
from torch_dag_pruning.learning.widths import RankedWidths
from torch_dag_pruning.plan.flops_budget import FlopsBudget
from torch_dag_pruning.plan.slots import Slots


@pytest.fixture(scope="module")
def analysis():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.BatchNorm2d(12), nn.ReLU(), nn.Conv2d(12, 7, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(7 * 16, 4),
    )  # fmt: skip
    return analyze(build_from_unstructured_module(net.eval(), torch.randn(2, 3, 8, 8)))


@pytest.fixture
def slots(analysis):
    return Slots(analysis.orbits)


def filled(gates, seed=0):
    with torch.no_grad():
        gates.logits.copy_(torch.randn(len(gates.logits), generator=torch.Generator().manual_seed(seed)) * 2)
    return gates


def test_slots_are_split_joined_summed_and_ranked(slots):
    values = torch.randn(19)
    parts = slots.split(values)
    assert [part.numel() for part in parts.values()] == [12, 7]
    assert torch.equal(slots.joined(parts), values)
    torch.testing.assert_close(slots.sums(values), torch.stack([part.sum() for part in parts.values()]))
    torch.testing.assert_close(slots.means(values), torch.stack([part.mean() for part in parts.values()]))
    for key, rank in slots.split(slots.ranks(values)).items():
        assert torch.equal(parts[key][rank.argsort()], parts[key].sort(descending=True).values)


def test_of_equal_scores_the_first_has_the_better_rank(slots):
    assert torch.equal(slots.ranks(torch.ones(19)), torch.cat([torch.arange(12), torch.arange(7)]))


@pytest.mark.parametrize("block", [None, 4, 0])
def test_expected_sizes_are_those_of_the_formula(slots, block):
    gates = filled(Gates(slots, block=block))
    for count, logits in zip(gates.counts(), slots.split(gates.logits).values(), strict=True):
        step = 1 if block is None else block or len(logits)
        blocks = logits.sort(descending=True).values.split(step)
        wanted = sum(len(each) * each.max().sigmoid() for each in blocks)
        torch.testing.assert_close(count, wanted)


def test_units_are_blocks_of_the_sorted_logits(slots):
    gates = filled(Gates(slots, block=4))
    for unit, logits in zip(slots.split(gates.units()).values(), slots.split(gates.logits).values(), strict=True):
        order = logits.argsort(descending=True)
        assert unit[order].tolist() == [place // 4 for place in range(len(logits))]
    assert Gates(slots, block=None).units() is None
    assert Gates(slots, block=0).units().unique().tolist() == [0]


def test_random_masks_have_the_probabilities_of_the_formula(slots):
    gates = Gates(slots, block=None)
    with torch.no_grad():
        gates.logits.fill_(-0.4)
    generator = torch.Generator().manual_seed(1)
    masks = torch.stack([gates.masks(generator).detach() for _ in range(4000)])
    # A mask is 1 with probability p, and else above one half with probability p.
    p = 1 / (1 + math.exp(0.4))
    assert float((masks == 1).float().mean()) == pytest.approx(p, abs=0.01)
    assert float((masks > 0.5).float().mean()) == pytest.approx(p + (1 - p) * p, abs=0.01)


def test_masks_are_equal_for_equal_generators_and_carry_gradients(slots):
    gates = filled(Gates(slots, block=None))
    first, again = (gates.masks(torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, gates.masks(torch.Generator().manual_seed(4)))
    (gradient,) = torch.autograd.grad(first.sum(), gates.logits)
    assert bool((gradient[first != 1] > 0).all())
    assert bool((gradient[first == 1] == 0).all())


def test_logits_beyond_their_bounds_return_and_still_learn(slots):
    gates = Gates(slots, block=None)
    with torch.no_grad():
        gates.logits.fill_(-40.0)
    masks = gates.masks(torch.Generator().manual_seed(0))
    assert bool((gates.logits == -6).all())
    (gradient,) = torch.autograd.grad(masks.sum(), gates.logits)
    assert bool((gradient[masks != 1] > 0).all())


def test_entropy_is_that_of_the_decisions(slots):
    gates = filled(Gates(slots, block=None))
    p = gates.logits.sigmoid()
    each = -(p * p.log() + (1 - p) * (1 - p).log())
    wanted = torch.stack([part.mean().clamp_min(0.01) for part in slots.split(each).values()]).mean()
    torch.testing.assert_close(gates.entropy(), wanted)
    with torch.no_grad():
        gates.logits.fill_(60.0)
    assert float(gates.entropy().detach()) == pytest.approx(0.01)


def test_weights_of_losses_grow_and_only_excess_counts():
    assert annealed(0, 100) == 0.0
    assert annealed(100, 100) == pytest.approx(0.9)
    assert float(excess(torch.tensor(0.75), 0.5)) == pytest.approx(0.5)
    assert float(excess(torch.tensor(0.25), 0.5)) == 0.0


def test_the_distance_that_masks_make_is_the_formula():
    x, mask = torch.randn(5, 4, 3, 3), torch.rand(4, 1, 1)
    masked = mask * x
    each = (masked - x).square().mean((0, 2, 3)) / (x.var((0, 2, 3), correction=0) + 1e-3)
    torch.testing.assert_close(moved(x, mask), each.mean())
    assert float(moved(x, torch.ones(4, 1, 1))) == 0.0


def test_block_distillation_sums_over_the_masks_of_the_latest_call(analysis):
    masking = Masking(analysis)
    blocks = BlockDistillation(masking)
    mask = torch.full((12,), 0.5, requires_grad=True)
    key = analysis.orbits[0].key
    masking.update({key: mask})
    masking.dag.train()(torch.randn(4, 3, 8, 8))
    first = blocks.value(torch.zeros(()))
    blocks.reset()
    masking.dag(torch.randn(4, 3, 8, 8))
    again = blocks.value(torch.zeros(()))
    assert 0 < float(again.detach()) < 1e-3
    assert float(first.detach()) != float(again.detach())
    again.backward()
    assert bool((mask.grad < 0).all())
    blocks.reset()
    masking.dag.eval()(torch.randn(4, 3, 8, 8))
    assert float(blocks.value(torch.zeros(()))) == 0.0


def test_soft_masks_of_widths_fall_from_one_to_zero_around_the_width(slots):
    widths = RankedWidths(slots, torch.rand(19))
    assert bool((widths.masks(torch.Generator()) == 1).all())
    with torch.no_grad():
        widths.widths.fill_(0.5)
    widths.window = 0.25
    masks = widths.masks(torch.Generator())
    for part, rank in zip(slots.split(masks).values(), slots.split(widths.rank).values(), strict=True):
        falling = part[rank.argsort()]
        assert bool((falling.diff() <= 0).all())
        assert bool((falling[: len(part) // 2 - 1] == 1).all())
    widths.window = 0.0
    torch.testing.assert_close(slots.sums(widths.masks(torch.Generator())), widths.counts())


def test_widths_rank_slots_by_what_masks_do_to_the_loss(slots):
    widths = RankedWidths(slots, torch.ones(19))
    gradient = torch.linspace(1.0, 2.0, 19)
    widths.observe(torch.ones(19), gradient)
    for rank in slots.split(widths.rank).values():
        assert rank.tolist() == list(range(len(rank)))[::-1]
    masks = torch.ones(19)
    masks[-1] = 0.0
    before = widths.fisher[-1].clone()
    widths.observe(masks, torch.zeros(19))
    assert widths.fisher[-1] == before


# The budget ------------------------------------------------------------------------------------------------------


def brute(analysis, slots, worth, flops):
    """Return the most slots above any one threshold that fit, at least one in each orbit."""
    parts = slots.split(worth)
    best = None
    for threshold in [math.inf, *sorted(worth.tolist(), reverse=True)]:
        kept = {
            key: sorted(part.topk(max(1, int((part >= threshold).sum()))).indices.tolist())
            for key, part in parts.items()
        }
        counts = {orbit.atom.id: len(kept[orbit.key]) for orbit in slots.orbits}
        if analysis.cost(counts) <= flops:
            best = kept
    return best


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_budget_is_filled_by_the_best_slots(analysis, slots, share, seed):
    worth = torch.rand(19, generator=torch.Generator().manual_seed(seed)) + 0.5
    flops = share * analysis.cost()
    plan = FlopsBudget(analysis, slots, flops).plan(worth)
    assert {key: list(kept) for key, kept in plan.kept.items()} == brute(analysis, slots, worth, flops)
    assert analysis.cost(plan.atom_counts(analysis)) <= flops


def test_ties_are_decided_by_the_second_value(analysis, slots):
    ties = torch.rand(19)
    plan = FlopsBudget(analysis, slots, 0.5 * analysis.cost()).plan(torch.ones(19), None, ties)
    assert {key: list(kept) for key, kept in plan.kept.items()} == brute(analysis, slots, ties, 0.5 * analysis.cost())


def test_blocks_stay_or_go_together(analysis, slots):
    gates = filled(Gates(slots, block=4))
    plan = FlopsBudget(analysis, slots, 0.4 * analysis.cost()).plan(gates.worth(), gates.units())
    for (key, kept), units in zip(plan.kept.items(), slots.split(gates.units()).values(), strict=True):
        inside = {int(unit) for unit in units[list(kept)]}
        assert len(kept) == sum(int((units == unit).sum()) for unit in inside), key


def test_an_orbit_vanishes_only_where_nothing_in_it_is_worth_anything(analysis, slots):
    first, second = (orbit.key for orbit in analysis.orbits)
    worth = slots.joined({first: torch.ones(12), second: torch.full((7,), -1.0)})
    budget = FlopsBudget(analysis, slots, 0.9 * analysis.cost({analysis.orbits[1].atom.id: 1}))
    assert budget.plan(worth).kept[second] == ()
    assert len(budget.plan(worth.abs() + torch.rand(19)).kept[second]) >= 1


def test_a_budget_that_cannot_be_kept_and_nan_are_refused(analysis, slots):
    with pytest.raises(PlanError, match="of the FLOPs cannot be reached, at least"):
        FlopsBudget(analysis, slots, 1.0).plan(torch.ones(19))
    with pytest.raises(PlanError, match="hold NaN"):
        FlopsBudget(analysis, slots, analysis.cost()).plan(torch.full((19,), torch.nan))
