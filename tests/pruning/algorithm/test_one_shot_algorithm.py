"""One-shot channel pruning behind the interface of all algorithms, from Python and from the command line."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from torch_dag_core.cli.app import app
from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import SettingsError
from torch_dag_core.graph.dag import DagModule
from torch_dag_pruning import plugin
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.plan.plan import Plan
from torch_dag_pruning.removal.removal import remove_channels


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
    (found,) = plugin.torch_dag_algorithms()
    return found


def test_the_steps_do_what_the_functions_do(dag, spec):
    algorithm = spec.start(dag, pruning_proportion=0.5)
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
    algorithm = spec.start(dag, pruning_proportion=0.5)
    losses = algorithm.losses(0)
    left = analyze(algorithm.finalize()).cost()
    assert float(losses.proportion) == pytest.approx(left / analyze(dag).cost())
    assert losses.proportion <= 0.5
    assert losses.total() == 0


def test_the_report_lists_every_orbit_with_what_goes(dag, spec):
    analysis, report = analyze(dag), spec.start(dag, pruning_proportion=1.0).analyze()
    assert [each.name for each in report.candidates] == [orbit.key for orbit in analysis.orbits]
    assert report.flops == analysis.cost()
    assert report.prunable_proportion == pytest.approx(analysis.prunable_proportion, abs=1e-6)
    for each, orbit in zip(report.candidates, analysis.orbits, strict=True):
        assert each.removable == analysis.cost() - analysis.cost({orbit.atom.id: 1})


def test_nothing_changes_the_graph(dag, spec):
    before, text = {name: t.clone() for name, t in dag.state_dict().items()}, str(dag)
    algorithm = spec.start(dag, pruning_proportion=0.5)
    algorithm.analyze()
    algorithm.prepare()
    algorithm.finalize()
    assert str(dag) == text
    assert all(torch.equal(before[name], t) for name, t in dag.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pruning_proportion": 0}, "pruning_proportion is the share of FLOPs that stays"),
        ({"pruning_proportion": 0.5, "scope": "here"}, "scope must be one of 'global', 'local', got 'here'"),
        ({"pruning_proportion": 0.5, "multiple_of": 0}, "multiple_of must be an integer of at least 1, got 0"),
        ({"pruning_proportion": 0.5, "criterion": "taste"}, "channel-pruning: .*'taste'"),
        ({"pruning_proportion": 1e-9}, "channel-pruning: "),
    ],
)
def test_wrong_settings_are_refused_at_the_start(dag, spec, settings, message):
    with pytest.raises(SettingsError, match=message):
        spec.start(dag, **settings)


def test_the_command_line_runs_it(dag, spec, tmp_path, monkeypatch):
    monkeypatch.setattr("torch_dag_core.cli.run.find_algorithm", {spec.name: spec}.__getitem__)
    dag.save(tmp_path / "net.safetensors")
    out = tmp_path / "small.safetensors"
    arguments = [
        "run",
        "channel-pruning",
        tmp_path / "net.safetensors",
        "--config",
        "pruning_proportion=0.5",
        "-o",
        out,
    ]
    result = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("channel-pruning: 2 candidates, ")
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(DagModule.load(out)(x), spec.start(dag, pruning_proportion=0.5).finalize()(x))
