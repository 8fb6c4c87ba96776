"""The names of the first torch-dag: one-shot pruning behind them, and a clear refusal of what does not exist yet."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import SettingsError
from torch_dag_pruning import ChannelPruning, MissingModeError, analyze

SHAPE = (3, 16, 16)


@pytest.fixture
def dag():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 24, 3), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 16, 3), nn.Flatten(), nn.Linear(16 * 144, 4)
    )
    return build_from_unstructured_module(net.eval(), torch.randn(2, *SHAPE))


def one_shot(dag, **settings):
    return ChannelPruning(dag, SHAPE, 0.5, num_training_steps=10, pruning_mode="one_shot", **settings)


def test_the_steps_of_a_training_loop(dag):
    pruning, x = one_shot(dag), torch.randn(8, *SHAPE)
    model = pruning.prepare_for_pruning().train()
    optimizer = torch.optim.SGD(model.parameters(), 1e-2)
    for step in range(3):
        proportion, flops_loss, entropy_loss, bkd_loss = pruning.compute_current_proportion_and_pruning_losses(step)
        optimizer.zero_grad()
        (model(x).square().mean() + flops_loss + entropy_loss + bkd_loss).backward()
        optimizer.step()
    pruned = pruning.remove_channels()
    torch.testing.assert_close(pruned.eval()(x), model.eval()(x), rtol=1e-4, atol=1e-5)
    assert float(proportion) == pytest.approx(analyze(pruned).cost() / analyze(dag).cost())
    assert proportion <= 0.5
    assert (flops_loss, entropy_loss, bkd_loss) == (0, 0, 0)


def test_the_model_is_not_changed(dag):
    before, text = {name: t.clone() for name, t in dag.state_dict().items()}, str(dag)
    pruning = one_shot(dag)
    prepared = pruning.prepare_for_pruning()
    with torch.no_grad():
        for parameter in prepared.parameters():
            parameter.add_(1)
    pruning.remove_channels()
    assert str(dag) == text
    assert all(torch.equal(before[name], t) for name, t in dag.state_dict().items())


def test_proportions_have_the_meaning_they_had(dag):
    pruning = one_shot(dag)
    assert pruning.prunable_proportion == pytest.approx(analyze(dag).removable_share, abs=1e-6)
    assert pruning.target_normalized_flops / pruning.initial_normalized_flops == pytest.approx(0.5)
    assert pruning.initial_normalized_flops == pytest.approx(analyze(dag).cost() / (1000 * 16 * 16))


@pytest.mark.parametrize("mode", ["default", "block_snpe", "whole_block"])
def test_learned_modes_are_refused_with_the_one_that_exists(dag, mode):
    with pytest.raises(MissingModeError, match=f"pruning_mode '{mode}' learns .* not exist yet; pass .*'one_shot'"):
        ChannelPruning(dag, SHAPE, 0.5, 10, pruning_mode=mode)
    assert issubclass(MissingModeError, NotImplementedError)


def test_the_default_mode_is_a_learned_one(dag):
    with pytest.raises(MissingModeError, match="'default'"):
        ChannelPruning(dag, SHAPE, 0.5, 10)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"prune_stem": False}, MissingModeError, "prune_stem=False needs layers to be held back"),
        ({"custom_unprunable_module_classes": (nn.Linear,)}, MissingModeError, "custom_unprunable_module_classes="),
        ({"temperature": 1.0}, TypeError, "ChannelPruning has no setting 'temperature'"),
    ],
)
def test_settings_that_cannot_be_honoured_are_refused(dag, settings, error, message):
    with pytest.raises(error, match=message):
        one_shot(dag, **settings)


def test_settings_of_the_learned_modes_may_be_given(dag):
    given = one_shot(
        dag, block_size=4, entropy_loss_weight=0.5, flops_loss_weight=5.0, anneal_losses=False, prune_stem=True,
        custom_unprunable_module_classes=(),
    )  # fmt: skip
    assert given.algorithm.plan == one_shot(dag).algorithm.plan


def test_an_unknown_mode_is_refused_with_those_there_are(dag):
    with pytest.raises(SettingsError, match=r"pruning_mode must be one of 'one_shot', 'default', .* got 'hasty'"):
        ChannelPruning(dag, SHAPE, 0.5, 10, pruning_mode="hasty")
