"""Repairing pruned graphs: where corrections go, what is never made worse, what is refused."""

from __future__ import annotations

import math
import re
import runpy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import torch_dag_core as td
from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import SettingsError
from torch_dag_core.testing import awaken
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.cut import Cut, recover, remove_channels
from torch_dag_pruning.errors import CalibrationError, RecoveryError
from torch_dag_pruning.plan.plan import Plan

PROGRAMS = runpy.run_path(str(Path(__file__).parents[1] / "removal" / "test_random_graphs.py"))


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.inner = nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.b, self.outer = nn.Conv2d(12, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.c, self.head = nn.Conv2d(8, 8, 1, bias=False), nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.outer(self.b(F.relu(self.inner(self.a(x))))))
        return self.head(F.relu(self.c(x)).mean((2, 3)))


def cut_of(model, x, keep=0.6, seed=0):
    dag = build_from_unstructured_module(awaken(model), x[:2]).eval()
    analysis = analyze(dag, x[:2])
    return Cut(analysis, Plan.random(analysis, keep, seed))


@pytest.fixture
def images():
    return torch.randn(60, 3, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def cut(images):
    torch.manual_seed(0)
    return cut_of(Normed(), images)


def state(dag):
    return {name: tensor.clone() for name, tensor in dag.state_dict().items()}


@pytest.mark.parametrize("target", ["local", "residual"])
def test_no_layer_is_worse_than_with_its_mean_folded(network_and_input, target):
    network, x = network_and_input
    dag = build_from_unstructured_module(network, x)
    analysis = analyze(dag, x)
    generator = torch.Generator().manual_seed(2)
    draw = (lambda: torch.randn(20, *x.shape[1:], generator=generator)) if x.is_floating_point() else (lambda: x)
    batches = [draw(), draw()]
    for seed in range(2) if analysis.orbits else ():
        cut = Cut(analysis, Plan.random(analysis, 0.6, seed))
        recovery = cut.recover(cut.removed(), batches, target=target)
        assert recovery.layers or recovery.skipped
        assert all(layer.after <= min(layer.mean, layer.before) for layer in recovery.layers)
        assert math.isfinite(recovery.error_after)


def test_recovery_helps_and_says_so(cut, images):
    removed = cut.removed()
    recovery = cut.recover(removed, images.split(25))
    assert recovery.error_after < 0.5 * recovery.error_before
    assert re.match(
        r"error of the outputs on held-out samples: [\d.]+% before, [\d.]+% after \(\d of 3 layers solved, 60 samples",
        str(recovery),
    )
    held = images[4::5]
    with torch.no_grad():
        wanted, given = cut.analysis.dag(held), recovery.dag(held)
    assert recovery.error_after == pytest.approx(float((given - wanted).norm() / wanted.norm()), rel=1e-4)


def test_what_is_passed_in_stays_as_it_is(cut, images):
    removed = cut.removed().train()
    before, reference = state(removed), state(cut.analysis.dag)
    recovery = cut.recover(removed, [images])
    assert removed.training
    assert all(module.training for module in recovery.dag.modules())
    for dag, old in ((removed, before), (cut.analysis.dag, reference)):
        assert all(torch.equal(tensor, old[name]) for name, tensor in dag.state_dict().items())


def test_recovered_graphs_are_saved_and_come_back(cut, images, tmp_path):
    recovery = cut.recover(cut.removed(), [images])
    recovery.dag.save(tmp_path / "pruned.safetensors")
    again = td.load(tmp_path / "pruned.safetensors")
    assert torch.equal(again(images), recovery.dag(images))
    record = again.provenance["recovery"]
    assert (record["samples"], record["error_after"]) == (60, recovery.error_after)
    assert record["layers"]["b"]["after"] == recovery.layers[0].after


def test_a_shift_goes_into_the_batch_norm_behind(cut, images):
    removed = cut.removed()
    recovery = cut.recover(removed, [images], method="mean", batch_norm="keep")
    old, new = removed.get_vertex_by_name("outer").module, recovery.dag.get_vertex_by_name("outer").module
    assert recovery.dag.get_vertex_by_name("b").module.bias is None
    assert not torch.equal(old.running_mean, new.running_mean)
    assert torch.equal(old.running_var, new.running_var)


def test_a_layer_without_a_bias_gets_one_where_no_batch_norm_reads_it(cut, images):
    removed = cut.removed()
    assert removed.get_vertex_by_name("c").module.bias is None
    recovery = cut.recover(removed, [images])
    bias = recovery.dag.get_vertex_by_name("c").module.bias
    assert isinstance(bias, nn.Parameter)
    assert bias.requires_grad
    assert float(bias.detach().abs().max()) > 0


def test_mean_folding_gives_results_the_means_that_they_had(cut, images):
    recovery = cut.recover(cut.removed(), [images], method="mean", batch_norm="keep", held_out=0.0, positions=36)
    wanted, given = cut.analysis.dag(images), recovery.dag(images)
    torch.testing.assert_close(given.mean(0), wanted.mean(0), rtol=1e-4, atol=1e-4)
    assert all(math.isnan(layer.after) for layer in recovery.layers)


def test_matched_batch_norms_give_the_means_and_variances_that_they_had(cut, images):
    recovery = cut.recover(cut.removed(), [images], method="batch_norm", batch_norm="match")
    assert not recovery.layers
    kept = cut.kept.take
    wanted, given = (_after(dag, "outer", images) for dag in (cut.analysis.dag, recovery.dag))
    wanted = kept(wanted, cut.axes.outputs("outer")[0])
    for moment in (torch.mean, torch.var):
        torch.testing.assert_close(moment(given, (0, 2, 3)), moment(wanted, (0, 2, 3)), rtol=1e-3, atol=1e-3)


def test_estimated_batch_norms_have_the_statistics_of_training(cut, images):
    dag = cut.analysis.dag
    for norm in (module for module in dag.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.momentum = 1.0
    dag.train()(images)  # statistics of other data would be matched instead
    dag.eval()
    recovery = cut.recover(cut.removed(), [images], method="batch_norm", batch_norm="estimate")
    module = recovery.dag.get_vertex_by_name("outer").module
    values = _after(recovery.dag, "b", images)
    torch.testing.assert_close(module.running_mean, values.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module.running_var, values.var((0, 2, 3)), rtol=1e-4, atol=1e-5)


def _after(dag, name, images):
    with torch.no_grad():
        return next(value for vertex, value in td.interpret(dag, images) if vertex.name == name)


def test_tied_weights_are_left_and_named():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 5), nn.Linear(8, 5)
            self.two.weight = self.one.weight
            self.head = nn.Linear(5, 3)

        def forward(self, x):
            return self.head(self.one(self.embed(x).relu()) + self.two(self.embed(x).tanh()))

    x = torch.randn(40, 6)
    torch.manual_seed(0)
    cut = cut_of(Tied(), x)
    recovery = cut.recover(cut.removed(), [x])
    assert set(recovery.skipped) == {"one", "two"}
    assert "left as it is: one: its weights are tied to those of 'two', which would change too" in str(recovery)
    assert [layer.vertex for layer in recovery.layers] == ["head"]


def test_trained_weights_are_repaired_too(cut, images):
    removed = cut.removed()
    with torch.no_grad():
        removed.get_vertex_by_name("a").module.weight.mul_(1.1)
    recovery = cut.recover(removed, [images])
    assert recovery.error_after < 0.5 * recovery.error_before


def test_nothing_removed_leaves_nothing_to_do(cut, images):
    whole = Cut(cut.analysis, Plan.whole(cut.analysis))
    recovery = whole.recover(whole.removed(), [images])
    assert (recovery.layers, recovery.error_before, recovery.error_after) == ((), 0.0, 0.0)


def test_the_function_does_what_the_cut_does(images):
    torch.manual_seed(0)
    dag = build_from_unstructured_module(awaken(Normed()), images[:2]).eval()
    plan = Plan.random(analyze(dag, images[:2]), 0.6, 0)
    pruned = remove_channels(dag, plan)
    recovery = recover(pruned, dag, [(images, "labels")], plan=plan, target="local")
    assert recovery.error_after < recovery.error_before


def test_more_samples_than_fit_are_refused(cut, images):
    with pytest.raises(RecoveryError, match=r"of 60 samples, .* take up to [\d,]+ bytes, more than most_bytes=50,000"):
        cut.recover(cut.removed(), [images], most_bytes=50_000)
    assert cut.recover(cut.removed(), [images], most_bytes=10**9).layers


def test_a_graph_of_another_plan_is_refused(cut, images):
    other = Cut(cut.analysis, Plan.random(cut.analysis, 0.3))
    with pytest.raises(RecoveryError, match="pass the plan that the graph was pruned with"):
        cut.recover(other.removed(), [images])


def test_data_is_needed(cut):
    with pytest.raises(CalibrationError, match="holds no batch"):
        cut.recover(cut.removed(), [])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"method": "magic"}, "method must be one of 'least_squares', 'mean', 'batch_norm'"),
        ({"target": "far"}, "target must be one of"),
        ({"batch_norm": True}, "batch_norm must be one of"),
        ({"alpha": -1.0}, "alpha must be a finite number of at least 0, or None, got -1.0"),
        ({"held_out": 1.0}, "held_out is a share of the samples, from 0 to below 1; got 1.0"),
        ({"positions": 0}, "positions must be an integer of at least 1"),
    ],
)
def test_settings_are_checked(cut, images, setting, message):
    with pytest.raises(SettingsError, match=message):
        cut.recover(cut.removed(), [images], **setting)


def test_progress_ends_at_the_last_vertex(cut, images):
    seen = []
    cut.recover(cut.removed(), [images], progress=lambda done, total: seen.append((done, total)))
    done, total = zip(*seen, strict=True)
    assert list(done) == sorted(done)
    assert done[-1] == total[-1] == total[0]


INSTRUCTIONS = st.lists(
    st.tuples(st.sampled_from(PROGRAMS["KINDS"]), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=6
)


@settings(max_examples=40)
@given(INSTRUCTIONS, st.integers(0, 2**16))
def test_random_programs_are_repaired(instructions, seed):
    torch.manual_seed(seed)
    x = torch.randn(24, 3, 4, 4)
    model = awaken(PROGRAMS["Program"](instructions)).eval()
    analysis = analyze(build_from_unstructured_module(model, x[:2]), x[:2])
    cut = Cut(analysis, Plan.random(analysis, 0.6, seed))
    removed = cut.removed()
    recovery = cut.recover(removed, x.split(10))
    assert all(layer.after <= min(layer.mean, layer.before) for layer in recovery.layers)
    assert recovery.dag(x).isfinite().all()


def test_a_network_whose_batch_norms_never_saw_the_data_is_not_made_worse():
    torch.manual_seed(0)
    layers = [layer for _ in range(12) for layer in (nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.SiLU())]
    model = nn.Sequential(nn.Conv2d(3, 16, 3), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()
    x = torch.randn(64, 3, 12, 12)
    analysis = analyze(build_from_unstructured_module(model, x[:2]), x[:2])
    cut = Cut(analysis, Plan.by_importance(analysis, "l2", keep_flops=0.5))
    recovery = cut.recover(cut.removed(), x.split(16))
    assert recovery.error_after < recovery.error_before


class TwoBranches(nn.Module):
    """Both operands of an addition are layers, with a batch norm behind one of them."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 1), nn.Conv2d(16, 8, 1)
        self.norm, self.c, self.head = nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, x):
        y = self.stem(x).relu()
        y = self.norm(self.a(y)) + self.b(y)
        return self.head((y + self.c(y.relu())).mean((2, 3)))


@pytest.mark.parametrize("batch_norm", ["estimate", "match"])
def test_both_branches_of_an_addition_are_repaired(batch_norm):
    torch.manual_seed(0)
    model, x = awaken(TwoBranches()).eval(), torch.randn(64, 3, 12, 12)
    analysis = analyze(build_from_unstructured_module(model, x[:2]), x[:2])
    cut = Cut(analysis, Plan.by_importance(analysis, "l2", keep_flops=0.5))
    recovery = cut.recover(cut.removed(), x.split(16), batch_norm=batch_norm)
    assert recovery.error_after < recovery.error_before
