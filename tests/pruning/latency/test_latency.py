"""Latency as a sum of measured ops, its table, and plans within a latency."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.testing import awaken
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.cut import remove_channels
from torch_dag_pruning.errors import LatencyError, PlanError
from torch_dag_pruning.latency.latency import Latency
from torch_dag_pruning.latency.providers import EagerDevice, LatencyProvider
from torch_dag_pruning.one_shot import OneShotChannelPruning
from torch_dag_pruning.plan.plan import Plan


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32)
        self.body, self.head = nn.Conv2d(32, 48, 3, padding=1), nn.Linear(48, 10)

    def forward(self, x):
        return self.head(F.relu(self.body(F.relu(self.norm(self.stem(x))))).mean((2, 3)))


@dataclass
class Counting:
    """Takes a millisecond for a thousand parameters, and counts what it measures."""

    overhead: float = 1.0
    calls: list = field(default_factory=list)
    name: str = "counting"
    device: str = "abacus"

    def measure(self, module, inputs):
        self.calls.append(module)
        whole = isinstance(module, DagModule)
        return (self.overhead if whole else 1.0) * 1e-6 * sum(p.numel() for p in module.parameters())


@pytest.fixture
def dag():
    torch.manual_seed(0)
    return build_from_unstructured_module(awaken(Net()).eval(), torch.randn(2, 3, 8, 8))


def test_the_latency_of_a_plan_is_that_of_the_ops_that_are_left(dag):
    analysis, provider = analyze(dag), Counting()
    latency = Latency(on=provider, multiple=1)
    plan = Plan.by_importance(analysis, "l2", latency_ms=0.5 * latency.of(analysis)({}), latency=latency)
    counts = plan.atom_counts(analysis)
    assert latency.of(analysis)(counts) == pytest.approx(1e-3 * analysis.parameters_count(counts))
    assert plan == Plan.by_importance(analysis, "l2", keep_parameters=0.5)


def test_fused_graphs_scale_the_sum(dag):
    analysis = analyze(dag)
    assert Latency(on=Counting(overhead=0.5)).of(analysis)({}) == pytest.approx(5e-4 * analysis.parameters_count())


def test_each_op_is_measured_once_and_kept_in_the_file(dag, tmp_path):
    path, analysis, first, second = tmp_path / "times.json", analyze(dag), Counting(), Counting()
    latency = Latency(on=first, table=path)
    plan = Plan.by_importance(analysis, "l2", latency_ms=10.0, latency=latency)
    measured = len(first.calls)
    assert Plan.by_importance(analysis, "l2", latency_ms=10.0, latency=latency) == plan
    assert len(first.calls) == measured
    assert Plan.by_importance(analysis, "l2", latency_ms=10.0, latency=Latency(on=second, table=path)) == plan
    assert second.calls == []
    (device,) = json.loads(path.read_text())["devices"]
    assert device == "counting: abacus"


def test_a_table_keeps_devices_apart(dag, tmp_path):
    path, analysis = tmp_path / "times.json", analyze(dag)
    Latency(on=Counting(), table=path).of(analysis)({})
    other = Counting(device="slide rule")
    Latency(on=other, table=path).of(analysis)({})
    assert other.calls
    assert len(json.loads(path.read_text())["devices"]) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is no table of latencies"), ("[]", "has no 'torch_dag_latency'"),
     ('{"torch_dag_latency": 1, "devices": {"a": {"b": -1}}}', "with seconds by device and op"),
     ('{"torch_dag_latency": 9, "devices": {}}', "is a table of format 9")],
)  # fmt: skip
def test_files_that_are_no_table_are_refused(tmp_path, text, message):
    (tmp_path / "times.json").write_text(text)
    with pytest.raises(LatencyError, match=message):
        Latency(on=Counting(), table=tmp_path / "times.json")


def test_a_latency_that_cannot_be_reached_says_what_can(dag):
    with pytest.raises(PlanError, match=r"latency_ms: 0.01 ms cannot be reached: with every orbit .* ms stay"):
        Plan.by_importance(analyze(dag), "l2", latency_ms=0.01, latency=Latency(on=Counting()))


def test_latency_needs_a_device(dag):
    with pytest.raises(PlanError, match=r"pass latency=torch_dag_pruning\.Latency"):
        Plan.by_importance(analyze(dag), "l2", latency_ms=1.0)
    with pytest.raises(PlanError, match="latency_ms is the time that one call may take"):
        Plan.by_importance(analyze(dag), "l2", latency_ms=0)


def test_an_op_that_does_not_run_is_named(dag):
    @dataclass
    class Broken(Counting):
        def measure(self, module, inputs):
            raise RuntimeError("no such kernel")

    with pytest.raises(LatencyError, match="vertex 'stem' cannot be measured on 'counting': no such kernel"):
        Latency(on=Broken()).of(analyze(dag))({})


def test_ops_are_measured_at_the_sizes_that_are_left(dag):
    @dataclass
    class Shapes(Counting):
        def measure(self, module, inputs):
            module(*inputs)
            self.calls.append([tuple(each.shape) for each in inputs])
            return 1e-3

    provider, analysis = Shapes(), analyze(dag)
    Latency(on=provider, batch=5).of(analysis)({orbit.atom.id: 7 for orbit in analysis.orbits})
    assert [(5, 3, 8, 8)] in provider.calls
    assert [(5, 8, 8, 8)] in provider.calls


def test_this_machine_is_a_device(dag):
    device = EagerDevice("cpu", seconds=0.001)
    assert isinstance(device, LatencyProvider)
    latency = Latency(on=device)
    analysis = analyze(dag)
    assert latency.of(analysis)({}) > 0
    assert latency.measured(remove_channels(dag, Plan.random(analysis, 0.5), analysis=analysis)) > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="looks at what is said where there is none")
def test_a_missing_device_is_one_clear_error():
    with pytest.raises(LatencyError, match="PyTorch finds no CUDA device"):
        Latency(on="cuda")


def test_the_algorithm_takes_a_latency(dag, tmp_path):
    table = tmp_path / "times.json"
    algorithm = OneShotChannelPruning(dag, None, latency_ms=1e6, latency_table=table, per="latency")
    assert algorithm.plan == Plan.whole(algorithm.analysis)
    assert table.exists()
    algorithm.finalize()
    assert "ms on cpu" in algorithm.conclusion()


@pytest.mark.parametrize("settings", [{"batch": 0}, {"multiple": 0}, {"batch": 1.5}])
def test_settings_are_checked(settings):
    with pytest.raises(LatencyError, match="must be an integer of at least 1"):
        Latency(on=Counting(), **settings)
