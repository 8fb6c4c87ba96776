"""Learned pruning as a training loop sees it: the target, equal masked and cut networks, optimizers, checkpoints."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import SettingsError
from torch_dag_pruning import LearnedChannelPruning, analyze
from torch_dag_pruning.learning.config import MODES

SHAPE = (3, 8, 8)


class Net(nn.Module):
    """A residual stream, a convolution without a bias before a ReLU, and a layer norm over channels."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.inner, self.outer = nn.Conv2d(12, 10, 3, padding=1, bias=False), nn.Conv2d(10, 12, 3, padding=1)
        self.last, self.head = nn.LayerNorm(12), nn.Linear(12, 4)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = x + self.outer(F.relu(self.inner(x)))
        return self.head(self.last(x.mean((2, 3))))


@pytest.fixture
def dag():
    torch.manual_seed(0)
    return build_from_unstructured_module(Net().eval(), torch.randn(2, *SHAPE))


def batches(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield torch.randn(6, *SHAPE, generator=generator), torch.randint(4, (6,), generator=generator)


def loss_of(pruning, x, y):
    return F.cross_entropy(pruning.network(x), y) + pruning.loss()


def adam(parameters):
    return torch.optim.AdamW(parameters, 1e-2, weight_decay=0.1)


def started(dag, steps=10, optimizer=adam, share=0.5, **settings):
    pruning = LearnedChannelPruning(dag, SHAPE, share, steps, **settings)
    pruning.prepare().train()
    made = optimizer(pruning.network.parameters())
    pruning.attach(made)
    return pruning, made


def trained(pruning, optimizer, data):
    for x, y in data:
        loss = loss_of(pruning, x, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        pruning.step()
    return pruning


# The target ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("steps", [0, 1, 7])
def test_the_target_holds_after_any_number_of_steps(dag, mode, steps):
    pruning, optimizer = started(dag, 7, mode=mode, block_size=3)
    pruned = trained(pruning, optimizer, batches(steps)).finalize()
    assert analyze(pruned).cost() <= 0.5 * analyze(dag).cost()
    assert pruning.proof is not None
    assert pruned(torch.randn(2, *SHAPE)).shape == (2, 4)


@pytest.mark.parametrize("mode", MODES)
def test_an_unreachable_target_is_refused_with_one_that_is(dag, mode):
    with pytest.raises(SettingsError, match=r"cannot get this graph below .*; ask for at least") as caught:
        LearnedChannelPruning(dag, SHAPE, 0.001, 10, mode=mode)
    least = float(str(caught.value).rsplit(" ", 1)[1])
    pruned = LearnedChannelPruning(dag, SHAPE, least, 10, mode=mode).finalize()
    assert analyze(pruned).cost() <= least * analyze(dag).cost()


def test_held_layers_keep_their_channels(dag):
    pruning = LearnedChannelPruning(dag, SHAPE, 0.7, 1, prune_stem=False)
    assert all(not key.startswith("stem") for key in (c.name for c in pruning.analyze().candidates))
    pruned = pruning.finalize()
    assert dict(pruned.named_parameters())["stem.weight"].shape[0] == 12
    assert dict(pruned.named_parameters())["inner.weight"].shape[0] < 10
    ignoring = LearnedChannelPruning(dag, SHAPE, 1.0, 1, ignore_classes=(nn.Conv2d,))
    assert not ignoring.analyze().candidates
    assert ignoring.analyze().removable_share == 0.0


def test_the_share_of_the_ranked_mode_follows_the_target(dag):
    pruning, optimizer = started(dag, 20)
    shares = []
    for x, y in batches(14):
        shares.append(float(pruning.losses(pruning.steps_done).cost_share.detach()))
        trained(pruning, optimizer, [(x, y)])
    assert shares[0] == 1.0
    assert shares[1] == pytest.approx(0.5 ** (2 / 4), abs=0.01)
    assert shares[5:] == pytest.approx([0.5] * 9, abs=0.01)


# Masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_evaluation_computes_what_would_be_cut(dag, mode):
    pruning, optimizer = started(dag, 10, mode=mode)
    trained(pruning, optimizer, batches(4))
    x = torch.randn(3, *SHAPE)
    evaluated = pruning.network.eval()(x)
    pruned = pruning.finalize()
    torch.testing.assert_close(pruned.eval()(x), evaluated, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_equal_seeds_give_equal_networks(dag, mode):
    first, again, other = (
        trained(*started(dag, 6, mode=mode, seed=seed), batches(6)).finalize().state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert mode == "ranked" or any(not torch.equal(first[name], other[name]) for name in first if name in other)


def test_the_model_is_not_changed(dag):
    before, text = copy.deepcopy(dag.state_dict()), str(dag)
    trained(*started(dag, 6), batches(6)).finalize()
    assert str(dag) == text
    assert all(torch.equal(before[name], tensor) for name, tensor in dag.state_dict().items())


def test_a_copy_keeps_the_masks_that_it_was_copied_with(dag):
    pruning, optimizer = started(dag, 10, mode="default")
    trained(pruning, optimizer, batches(3))
    x = torch.randn(2, *SHAPE)
    wanted = pruning.network.eval()(x)
    twin = copy.deepcopy(pruning.network)
    pruning.network.train()
    trained(pruning, optimizer, batches(3, seed=5))
    assert torch.equal(twin(x), wanted)


def test_channels_that_matter_more_to_the_loss_stay(dag):
    """The outputs read two channels of the inner convolution only; the others are noise."""
    with torch.no_grad():
        dag.get_vertex_by_name("outer").module.weight[:, 2:] *= 1e-3
        dag.get_vertex_by_name("inner").module.weight[2:] *= 1e2
    pruning, optimizer = started(dag, 10, lambda parameters: torch.optim.SGD(parameters, 0.0), share=0.3)
    trained(pruning, optimizer, batches(10))
    assert {0, 1} <= set(pruning.plan.kept["inner.weight:0"])


# The cut -----------------------------------------------------------------------------------------------------------


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9, weight_decay=1e-2, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 1e-3, amsgrad=True),
    "adamw": adam,
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.9, centered=True),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_training_goes_on_as_if_nothing_had_been_cut(dag, make):
    """Five steps after the cut equal five steps of the network with hard masks, at the kept slots."""
    double = Net().double().eval()
    double.load_state_dict(dag.state_dict())
    dag = build_from_unstructured_module(double, torch.randn(2, *SHAPE, dtype=torch.float64))
    cut, one = started(dag, 10, make, mode="ranked", freeze_at=0.5)
    masked, two = started(dag, 10, make, mode="ranked", freeze_at=0.5)
    data = [(x.double(), y) for x, y in batches(10)]
    trained(cut, one, data)
    for number, (x, y) in enumerate(data):
        loss = F.cross_entropy(masked.network(x), y) + masked.losses(number).total()
        two.zero_grad()
        loss.backward()
        two.step()
        if number < 4:
            masked.step()
        elif number == 4:
            masked.steps_done += 1
            masked._learn()
            masked._choosing.freeze()
    assert cut.network is not masked.network
    assert cut.plan == masked.plan
    x = torch.randn(3, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close(cut.network.eval()(x), masked.network.eval()(x), rtol=1e-7, atol=1e-9)


def test_the_attached_optimizer_stays_the_same_object_under_its_schedule(dag):
    pruning, optimizer = started(dag, 10, freeze_at=0.5)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    for x, y in batches(10):
        trained(pruning, optimizer, [(x, y)])
        schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-2 * 0.5**10)
    assert {id(p) for p in optimizer.param_groups[0]["params"]} == {id(p) for p in pruning.network.parameters()}
    assert all(p.grad is not None for p in pruning.network.parameters())


def test_the_cut_says_that_the_network_is_another_one(dag):
    pruning, optimizer = started(dag, 10, freeze_at=0.5)
    first, changes = pruning.network, []
    for x, y in batches(10):
        loss_of(pruning, x, y).backward()
        optimizer.step()
        changes.append(pruning.step())
    assert changes == [False] * 4 + [True] + [False] * 5
    assert pruning.network is not first
    assert pruning.finalize() is pruning.network
    assert pruning.network.training


def test_data_repairs_the_weights_after_the_cut(dag):
    pruning = LearnedChannelPruning(dag, SHAPE, 0.5, 10)
    pruning.calibrate(torch.randn(64, *SHAPE).split(32))
    pruned = pruning.finalize()
    assert pruning.recovery.error_after < pruning.recovery.error_before
    assert "error of the outputs" in pruning.conclusion()
    assert analyze(pruned).cost() <= 0.5 * analyze(dag).cost()
    with pytest.raises(SettingsError, match="must come before prepare"):
        pruning.calibrate([])


# Checkpoints -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("at", [2, 6])
@pytest.mark.parametrize("repaired", [False, True])
def test_a_checkpoint_continues_bit_for_bit(dag, mode, at, repaired, tmp_path):
    data = list(batches(8))

    def fresh():
        pruning = LearnedChannelPruning(dag, SHAPE, 0.5, 8, mode=mode, freeze_at=0.5)
        if repaired:
            pruning.calibrate([x for x, _ in data])
        pruning.prepare().train()
        optimizer = adam(pruning.network.parameters())
        pruning.attach(optimizer)
        return pruning, optimizer

    first, one = fresh()
    trained(first, one, data[:at])
    state = {"pruning": first.state_dict(), "network": first.network.state_dict(), "optimizer": one.state_dict()}
    torch.save(state, tmp_path / "checkpoint.pt")
    trained(first, one, data[at:])

    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    second, two = fresh()
    second.load_state_dict(state["pruning"])
    second.network.load_state_dict(state["network"])
    two.load_state_dict(state["optimizer"])
    trained(second, two, data[at:])

    wanted, given = first.finalize().state_dict(), second.finalize().state_dict()
    assert wanted.keys() == given.keys()
    assert all(torch.equal(wanted[name], given[name]) for name in wanted)
    assert first.plan == second.plan
