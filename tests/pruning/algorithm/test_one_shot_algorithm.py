"""One-shot channel pruning behind the interface of all algorithms, from Python and from the command line."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from torch_dag_core.algorithms.compression import CompressionAlgorithm
from torch_dag_core.cli.app import app
from torch_dag_core.cli.run import algorithm_command
from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import InputError, SettingsError
from torch_dag_core.graph.dag import DagModule
from torch_dag_pruning import plugin
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.cli.command import prune
from torch_dag_pruning.cut import remove_channels
from torch_dag_pruning.one_shot import OneShotChannelPruning
from torch_dag_pruning.plan.plan import Plan
from torch_dag_pruning.statistics.statistics import Statistics


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 16, 3, padding=1)
        )
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.layers(x).mean((2, 3)))


@pytest.fixture(scope="module")
def dag():
    torch.manual_seed(0)
    return build_from_unstructured_module(Net().eval(), torch.randn(2, 3, 16, 16))


@pytest.fixture
def spec():
    (found,) = (spec for spec in plugin.torch_dag_algorithms() if spec.name == OneShotChannelPruning.name)
    return found


def test_the_steps_do_what_the_functions_do(dag, spec):
    algorithm = spec.start(dag, keep_flops=0.5)
    plan = Plan.by_importance(analyze(dag), "l2", 0.5)
    assert algorithm.plan == plan
    expected, pruned, masked = remove_channels(dag, plan), algorithm.finalize(), algorithm.prepare()
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(pruned(x), expected(x))
    torch.testing.assert_close(masked(x), pruned(x))
    assert {name: t.shape for name, t in pruned.state_dict().items()} == {
        name: t.shape for name, t in expected.state_dict().items()
    }


def test_the_losses_give_the_share_that_stays(dag, spec):
    algorithm = spec.start(dag, keep_flops=0.5)
    losses = algorithm.losses(0)
    left = analyze(algorithm.finalize()).cost()
    assert float(losses.cost_share) == pytest.approx(left / analyze(dag).cost())
    assert losses.cost_share <= 0.5
    assert losses.total() == 0


def test_the_report_lists_every_orbit_with_what_goes(dag, spec):
    analysis, report = analyze(dag), spec.start(dag, keep_flops=1.0).analyze()
    assert [each.name for each in report.candidates] == [orbit.key for orbit in analysis.orbits]
    assert report.flops == analysis.cost()
    assert report.removable_share == pytest.approx(analysis.removable_share, abs=1e-6)
    for each, orbit in zip(report.candidates, analysis.orbits, strict=True):
        assert each.removable == analysis.cost() - analysis.cost({orbit.atom.id: 1})


def test_nothing_changes_the_graph(dag, spec):
    before, text = {name: t.clone() for name, t in dag.state_dict().items()}, str(dag)
    algorithm = spec.start(dag, keep_flops=0.5)
    algorithm.analyze()
    algorithm.prepare()
    algorithm.finalize()
    assert str(dag) == text
    assert all(torch.equal(before[name], t) for name, t in dag.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep_flops": 0}, "keep_flops is the share of FLOPs that stays"),
        ({"keep_flops": 0.5, "scope": "here"}, "scope must be one of 'global', 'isomorphic', 'local', got 'here'"),
        ({"keep_flops": 0.5, "multiple_of": 0}, "multiple_of must be an integer of at least 1, got 0"),
        ({"keep_flops": 0.5, "criterion": "taste"}, "channel-pruning: .*'taste'"),
        ({"keep_flops": 1e-9}, "channel-pruning: "),
    ],
)
def test_wrong_settings_are_refused_at_the_start(dag, spec, settings, message):
    with pytest.raises(SettingsError, match=message):
        spec.start(dag, **settings)


def test_the_algorithm_is_the_one_base_of_all_compression(dag, spec):
    algorithm = spec.start(dag, keep_flops=0.5)
    assert isinstance(algorithm, CompressionAlgorithm)
    assert algorithm.removable_share == pytest.approx(analyze(dag).removable_share, abs=1e-6)
    assert algorithm.target_normalized_flops / algorithm.initial_normalized_flops == pytest.approx(0.5)


def test_the_share_may_be_one_of_other_flops(dag, spec):
    now = analyze(dag).cost()
    half = spec.start(dag, keep_flops=0.25, reference_flops=2 * now)
    assert half.plan == spec.start(dag, keep_flops=0.5).plan
    assert spec.start(dag, keep_flops=1.0, reference_flops=2 * now).plan == Plan.whole(half.analysis)


def test_a_shape_other_than_the_remembered_one_is_analysed(dag):
    larger = OneShotChannelPruning(dag, (3, 32, 32), keep_flops=0.5)
    assert larger.analyze().flops == analyze(dag, torch.randn(2, 3, 32, 32)).cost()
    assert larger.finalize()(torch.randn(1, 3, 32, 32)).shape == (1, 4)


def test_one_shape_does_not_describe_several_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(5, 8), nn.Linear(8, 3)

        def forward(self, x, y):
            return self.b(self.a(x) + self.a(y))

    two = build_from_unstructured_module(Two(), (torch.randn(2, 5), torch.randn(2, 5)))
    with pytest.raises(InputError, match="takes 2 tensors, of which input_shape describes one; pass None"):
        OneShotChannelPruning(two, (7,), keep_flops=0.5)
    assert OneShotChannelPruning(two, None, keep_flops=0.5).finalize()


def test_the_proof_is_there_after_the_removal(dag, spec):
    algorithm = spec.start(dag, keep_flops=0.5)
    assert algorithm.conclusion() == ""
    algorithm.finalize()
    assert algorithm.conclusion().startswith("masked and removed agree to")
    unverified = spec.start(dag, keep_flops=0.5, verify=False)
    unverified.finalize()
    assert unverified.conclusion() == ""


def test_weights_trained_with_the_masks_are_cut(dag, spec):
    algorithm, x = spec.start(dag, keep_flops=0.5), torch.randn(2, 3, 16, 16)
    prepared = algorithm.prepare()
    prepared.train()(x).square().mean().backward()
    torch.optim.SGD(prepared.parameters(), 0.1).step()
    trained = prepared.eval()(x)
    torch.testing.assert_close(algorithm.finalize().eval()(x), trained)
    assert not torch.allclose(trained, spec.start(dag, keep_flops=0.5).finalize()(x))


@pytest.fixture
def both(dag, spec, tmp_path, monkeypatch):
    """Run ``torch-dag prune`` and ``torch-dag run channel-pruning`` with equal options."""
    monkeypatch.setattr("torch_dag_core.cli.run.find_algorithm", {spec.name: spec}.__getitem__)
    dag.save(tmp_path / "net.safetensors")

    def invoke(*options):
        for command in ([prune], [app, "run", "channel-pruning"]):
            name = "prune" if command[0] is prune else "run"
            out, plan = tmp_path / f"{name}.safetensors", tmp_path / f"{name}.json"
            arguments = [*command[1:], tmp_path / "net.safetensors", *options, "--out", out, "--save-plan", plan]
            result = CliRunner().invoke(command[0], [str(each) for each in arguments], catch_exceptions=False)
            assert result.exit_code == 0, result.output
            yield result.stdout.replace(str(out), "OUT"), out, plan

    return invoke


def unmeasured(said):
    """Return the words of each line that does not hold a time or a rounding error, nor the frame of a table."""
    words = ("latency", "agree to", "━", "─")
    return [line.split() for line in said.splitlines() if not any(word in line for word in words)]


@pytest.mark.parametrize(
    "options",
    [
        ("--keep-flops", "0.5"),
        ("--keep-flops", "0.6", "--criterion", "l1", "--scope", "local", "--multiple-of", "4"),
        ("--keep-flops=0.5", "--no-verify"),
    ],
)
def test_prune_and_run_go_one_way(both, options):
    (said, out, plan), (also, same, same_plan) = both(*options)
    assert unmeasured(said) == unmeasured(also)
    assert out.read_bytes() == same.read_bytes()
    assert plan.read_bytes() == same_plan.read_bytes()
    assert ("masked and removed agree to" in said) == ("--no-verify" not in options)
    for word in ("can be pruned", "FLOPs", "latency", "td.load"):
        assert word in said


def test_prune_and_run_have_the_same_options(spec):
    names = {option.name for option in prune.params}
    assert names == {option.name for option in algorithm_command(spec).params}
    flags = {flag for option in prune.params for flag in option.opts}
    assert {"--keep-flops", "--criterion", "--scope", "--multiple-of", "--save-plan", "--size", "--out"} <= flags
    assert {f"--{setting.replace('_', '-')}" for setting in spec.settings()} <= flags


def test_a_plan_without_a_folder_is_refused_before_any_work(dag, spec, tmp_path):
    with pytest.raises(SettingsError, match="save_plan: there is no folder"):
        spec.start(dag, keep_flops=0.5, save_plan=tmp_path / "nowhere" / "plan.json")


def test_the_command_line_runs_it(dag, spec, tmp_path, monkeypatch):
    monkeypatch.setattr("torch_dag_core.cli.run.find_algorithm", {spec.name: spec}.__getitem__)
    dag.save(tmp_path / "net.safetensors")
    out = tmp_path / "small.safetensors"
    arguments = [
        "run",
        "channel-pruning",
        tmp_path / "net.safetensors",
        "--config",
        "keep_flops=0.5",
        "-o",
        out,
    ]
    result = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("channel-pruning: 2 candidates, ")
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(DagModule.load(out)(x), spec.start(dag, keep_flops=0.5).finalize()(x))


def by_data(dag, batches, **choice):
    analysis = analyze(dag)
    statistics = Statistics.collect(analysis, batches) if batches else None
    return Plan.by_importance(analysis, "obs" if batches else "l2", statistics=statistics, **choice)


@pytest.mark.parametrize(
    ("budget", "per"),
    [({"keep_flops": 0.5}, "flops"), ({"keep_parameters": 0.5}, "parameters"), ({"keep_memory": 0.8}, "memory")],
)
def test_by_default_data_chooses_slots_by_the_error_they_leave_per_what_the_budget_counts(dag, budget, per):
    batches = list(torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0)).split(32))
    algorithm = OneShotChannelPruning(dag, None, **budget)
    assert algorithm.plan == by_data(dag, [], **budget)
    assert algorithm.looks_at_data
    algorithm.calibrate(batches)
    assert algorithm.plan == by_data(dag, batches, per=per, **budget)


@pytest.mark.parametrize("settings", [{"criterion": "l2"}, {"recover": "none"}, {"recover": "mean"}])
def test_data_chooses_no_slots_for_other_criteria_and_repairs(dag, settings):
    algorithm = OneShotChannelPruning(dag, None, keep_flops=0.5, **settings)
    algorithm.calibrate([torch.randn(32, 3, 16, 16)])
    assert algorithm.plan == by_data(dag, [], keep_flops=0.5)


def test_a_prepared_graph_keeps_the_slots_that_it_was_masked_by(dag):
    algorithm = OneShotChannelPruning(dag, None, keep_flops=0.5)
    algorithm.prepare()
    plan = algorithm.plan
    algorithm.calibrate([torch.randn(32, 3, 16, 16)])
    assert algorithm.plan == plan
