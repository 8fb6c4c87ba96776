"""What optimizers, gradient scalers and averaged copies carry over a removal: slices of what they had."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.optim import Lion
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_pruning import (
    Plan,
    RemovalError,
    analyze,
    carry_average,
    carry_optimizer,
    carry_optimizer_,
    remove_channels,
)

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, 1e-3, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=0.1),
    "lion": lambda p: Lion(p, 1e-3, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.9, centered=True),
}
KEPT = {"0.weight:0": [1, 4, 6], "3.weight:0": [0, 3]}


@pytest.fixture
def case():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 5, 3), nn.Flatten(), nn.Linear(5 * 16, 4)
    )
    dag = build_from_unstructured_module(net.train(), torch.randn(4, 3, 8, 8))
    analysis = analyze(dag)
    return dag, analysis, Plan.keeping(analysis, KEPT)


def stepped(dag, optimizer, steps=3, average=None):
    for _ in range(steps):
        optimizer.zero_grad()
        dag(torch.randn(4, 3, 8, 8)).square().mean().backward()
        optimizer.step()
        if average is not None:
            average.update_parameters(dag)


def part(name, tensor):
    """Return the kept part of a tensor of the net, written out by hand."""
    first, second = torch.tensor(KEPT["0.weight:0"]), torch.tensor(KEPT["3.weight:0"])
    layer = name.split(".")[0]
    if layer in "01":
        return tensor[first]
    if name == "3.weight":
        return tensor[second][:, first]
    if name == "3.bias":
        return tensor[second]
    return tensor.reshape(4, 5, 16)[:, second].reshape(4, 32) if name == "5.weight" else tensor


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_the_state_is_the_slice_of_the_old_one(case, make):
    dag, analysis, plan = case
    optimizer = make(dag.parameters())
    stepped(dag, optimizer)
    old = {name: copy.deepcopy(optimizer.state[p]) for name, p in dag.named_parameters()}
    pruned = remove_channels(dag, plan, analysis=analysis)
    carry_optimizer_(optimizer, dag, pruned, plan, analysis=analysis)
    assert {id(p) for p in optimizer.state} == {id(p) for p in pruned.parameters()}
    for name, parameter in pruned.named_parameters():
        assert optimizer.state[parameter].keys() == old[name].keys()
        for key, value in optimizer.state[parameter].items():
            was = old[name][key]
            wanted = part(name, was) if isinstance(was, torch.Tensor) and was.dim() else was
            assert torch.equal(value, wanted) if isinstance(value, torch.Tensor) else value == wanted, (name, key)
    before = {name: p.detach().clone() for name, p in pruned.named_parameters()}
    stepped(pruned, optimizer, 1)
    assert all(not torch.equal(before[name], p) for name, p in pruned.named_parameters() if name != "0.bias")


def test_groups_keep_their_settings_and_parameters_of_other_modules(case):
    dag, analysis, plan = case
    extra = nn.Linear(4, 2)
    weights = [p for p in dag.parameters() if p.dim() > 1]
    others = [p for p in dag.parameters() if p.dim() == 1]
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": [*others, *extra.parameters()], "lr": 0.5}]
    optimizer = torch.optim.AdamW(groups, 1e-3, weight_decay=0.0)
    dag(torch.randn(4, 3, 8, 8)).square().mean().backward()
    extra(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    state = copy.deepcopy(optimizer.state[extra.weight])
    pruned = remove_channels(dag, plan, analysis=analysis)
    new = carry_optimizer(optimizer, dag, pruned, plan, analysis=analysis)
    carry_optimizer_(optimizer, dag, pruned, plan, analysis=analysis)
    for each in (new, optimizer):
        first, second = each.param_groups
        assert (first["weight_decay"], first["lr"], second["weight_decay"], second["lr"]) == (0.1, 1e-3, 0.0, 0.5)
        assert all(p.dim() > 1 for p in first["params"])
        assert {id(p) for p in extra.parameters()} <= {id(p) for p in second["params"]}
        assert torch.equal(each.state[extra.weight]["exp_avg"], state["exp_avg"])


def test_a_gradient_scaler_goes_on_with_the_same_optimizer(case):
    dag, analysis, plan = case
    optimizer = OPTIMIZERS["sgd"](dag.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    pruned = remove_channels(dag, plan, analysis=analysis)
    for network in (dag, pruned):
        if network is pruned:
            carry_optimizer_(optimizer, dag, pruned, plan, analysis=analysis)
        before = network.get_vertex_by_name("3").module.weight.detach().clone()
        optimizer.zero_grad()
        scaler.scale(network(torch.randn(4, 3, 8, 8)).square().mean()).backward()
        scaler.step(optimizer)
        scaler.update()
        assert bool((network.get_vertex_by_name("3").module.weight != before).any())
    assert scaler.get_scale() == 256.0


def test_an_averaged_copy_is_cut_with_its_own_weights(case):
    dag, analysis, plan = case
    average = AveragedModel(dag, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    optimizer = OPTIMIZERS["sgd"](dag.parameters())
    stepped(dag, optimizer, average=average)
    pruned = remove_channels(dag, plan, analysis=analysis)
    cut = carry_average(average.module, dag, pruned, plan, analysis=analysis)
    averages = average.module.state_dict()
    for name, tensor in cut.state_dict().items():
        wanted = averages[name] if name.endswith("tracked") else part(name, averages[name])
        assert torch.equal(tensor, wanted), name
    assert not torch.equal(cut.state_dict()["0.weight"], pruned.state_dict()["0.weight"])
    average.module = cut
    average.update_parameters(pruned)


def test_a_state_of_another_form_is_refused_by_name_and_changes_nothing(case):
    dag, analysis, plan = case
    optimizer = torch.optim.Adafactor(dag.parameters())
    stepped(dag, optimizer)
    groups, state = [list(group["params"]) for group in optimizer.param_groups], dict(optimizer.state)
    pruned = remove_channels(dag, plan, analysis=analysis)
    with pytest.raises(RemovalError, match=r"state 'row_var' of '0\.weight' has the shape .*, so it cannot be cut"):
        carry_optimizer_(optimizer, dag, pruned, plan, analysis=analysis)
    for group, parameters in zip(optimizer.param_groups, groups, strict=True):
        assert [id(p) for p in group["params"]] == [id(p) for p in parameters]
    assert dict(optimizer.state) == state
