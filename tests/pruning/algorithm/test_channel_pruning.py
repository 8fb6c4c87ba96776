"""The names of the first torch-dag: learned modes and one-shot pruning behind them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import SettingsError
from torch_dag_pruning import ChannelPruning, PlanError, analyze

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


MODES = ("default", "block_snpe", "whole_block")


def learned(dag, share=0.5, steps=10, **settings):
    return ChannelPruning(dag, SHAPE, share, steps, **settings)


def trained(pruning, steps, rate=1e-2):
    """Train as a loop written for the original torch-dag does."""
    torch.manual_seed(0)
    model = pruning.prepare_for_pruning().train()
    optimizer = torch.optim.Adam(model.parameters(), rate)
    seen = []
    for step in range(steps):
        task = model(torch.randn(8, *SHAPE)).square().mean()
        losses = pruning.compute_current_proportion_and_pruning_losses(step)
        optimizer.zero_grad()
        (task + losses.flops_loss + losses.entropy_loss + losses.bkd_loss).backward()
        optimizer.step()
        seen.append(losses)
    return model, seen


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("steps", [0, 1, 12])
def test_learned_modes_reach_the_target_after_any_number_of_steps(dag, mode, steps):
    pruning = learned(dag, pruning_mode=mode, block_size=4)
    model, _ = trained(pruning, steps)
    x = torch.randn(4, *SHAPE)
    evaluated = model.eval()(x)
    pruned = pruning.remove_channels()
    assert analyze(pruned).cost() <= 0.5 * analyze(dag).cost()
    torch.testing.assert_close(pruned.eval()(x), evaluated, rtol=1e-4, atol=1e-5)


def test_the_default_mode_decides_about_each_channel(dag):
    assert ChannelPruning(dag, SHAPE, 0.5, 10).algorithm.config.mode == "default"


@pytest.mark.parametrize("mode", MODES)
def test_logits_are_parameters_of_the_prepared_model_and_are_trained(dag, mode):
    pruning = learned(dag, pruning_mode=mode)
    model, _ = trained(pruning, 3)
    logits = dict(model.named_parameters())["channel_gates.logits"]
    assert logits.shape == (40,)
    assert bool((logits != 3.0).any())
    assert "channel_gates.logits" in model.state_dict()
    assert not [name for name in pruning.remove_channels().state_dict() if "gates" in name]


def test_losses_are_those_of_the_original(dag):
    pruning = learned(dag, 0.5, 100)
    _, seen = trained(pruning, 2, rate=0.0)
    for step, losses in enumerate(seen):
        weight = 1 - 0.1 ** (step / 100)
        kept = torch.full((), 3.0).sigmoid()
        counts = {orbit.atom.id: orbit.n * kept for orbit in analyze(dag).orbits}
        share = analyze(dag).cost(counts) / analyze(dag).cost()
        entropy = -(kept * kept.log() + (1 - kept) * (1 - kept).log())
        torch.testing.assert_close(losses.proportion.detach(), share)
        torch.testing.assert_close(losses.flops_loss.detach(), 10 * weight * (share / 0.5 - 1))
        torch.testing.assert_close(losses.entropy_loss.detach(), weight * entropy)
        assert 0 < float(losses.bkd_loss.detach()) < 1e-3


def test_losses_without_annealing_have_their_full_weight_at_once(dag):
    whole = trained(learned(dag, anneal_losses=False, flops_loss_weight=2.0), 1)[1][0]
    assert float(whole.flops_loss.detach()) == pytest.approx(2.0 * (float(whole.proportion.detach()) / 0.5 - 1))


def test_logits_are_driven_to_the_target(dag):
    pruning = learned(dag, 0.5, 60)
    _, seen = trained(pruning, 60, rate=0.1)
    assert float(seen[0].proportion.detach()) > 0.9
    assert float(seen[-1].proportion.detach()) < 0.6


def test_from_the_last_step_on_the_choice_stands(dag):
    pruning = learned(dag, 0.5, 4)
    trained(pruning, 6)
    plan = pruning.algorithm.plan
    with torch.no_grad():
        pruning.prepare_for_pruning().channel_gates.logits.neg_()
    assert pruning.algorithm.plan == plan


def test_layers_can_be_held_back(dag):
    pruned = learned(dag, 0.6, prune_stem=False).remove_channels()
    shapes = {name: tuple(tensor.shape) for name, tensor in pruned.state_dict().items()}
    assert shapes["0.weight"] == (24, 3, 3, 3)
    assert shapes["3.weight"][0] < 16
    with pytest.raises(SettingsError, match="cannot get this graph below"):
        learned(dag, 0.6, custom_unprunable_module_classes=(nn.Conv2d,))


def test_a_share_out_of_reach_is_refused_with_the_least(dag):
    with pytest.raises(SettingsError, match=r"ask for at least 0\.0"):
        learned(dag, 1e-4)


def test_the_state_of_the_prepared_model_loads_into_another_one(dag):
    first, _ = trained(learned(dag), 3)
    second = learned(dag).prepare_for_pruning()
    second.load_state_dict(first.state_dict())
    x = torch.randn(2, *SHAPE)
    assert torch.equal(second.eval()(x), first.eval()(x))


def test_a_setting_that_does_not_exist_is_refused(dag):
    with pytest.raises(TypeError, match="ChannelPruning has no setting 'temperature'"):
        one_shot(dag, temperature=1.0)


@pytest.mark.parametrize("mode", ["one_shot", "default"])
def test_the_stem_and_classes_of_layers_are_held_back(dag, mode):
    first = next(vertex for vertex in dag.inner_vertices if isinstance(vertex.module, nn.Conv2d))
    pruning = ChannelPruning(dag, SHAPE, 0.8, 10, pruning_mode=mode, prune_stem=False)
    assert pruning.remove_channels().get_vertex_by_name(first.name).module.out_channels == first.module.out_channels
    with pytest.raises((SettingsError, PlanError), match=r"cannot get|leaves nothing"):
        ChannelPruning(dag, SHAPE, 0.5, 10, pruning_mode=mode, custom_unprunable_module_classes=(nn.Conv2d,))


def test_settings_of_the_learned_modes_may_be_given(dag):
    given = one_shot(
        dag, block_size=4, entropy_loss_weight=0.5, flops_loss_weight=5.0, anneal_losses=False, prune_stem=True,
        custom_unprunable_module_classes=(),
    )  # fmt: skip
    assert given.algorithm.plan == one_shot(dag).algorithm.plan


def test_an_unknown_mode_is_refused_with_those_there_are(dag):
    with pytest.raises(SettingsError, match=r"pruning_mode must be one of 'one_shot', 'default', .* got 'hasty'"):
        ChannelPruning(dag, SHAPE, 0.5, 10, pruning_mode="hasty")
