"""Pruning in steps, and plans that are replayed, edited and put one after the other."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torch.nn import functional as F

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.errors import SettingsError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.testing import awaken
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.cli.command import prune
from torch_dag_pruning.cut import remove_channels
from torch_dag_pruning.errors import PlanError
from torch_dag_pruning.one_shot import OneShotChannelPruning
from torch_dag_pruning.plan.plan import Plan
from torch_dag_pruning.schedule import Schedule


class Net(nn.Module):
    """Convolutions with a residual connection, attention with heads, and an MLP."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 24, 3, padding=1), nn.BatchNorm2d(24)
        self.conv1, self.conv2 = nn.Conv2d(24, 32, 3, padding=1), nn.Conv2d(32, 24, 1)
        self.qkv, self.proj = nn.Linear(24, 72), nn.Linear(24, 24)
        self.fc1, self.head = nn.Linear(24, 40), nn.Linear(40, 6)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = (x + self.conv2(F.relu(self.conv1(x)))).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, 4, 6).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return self.head(F.gelu(self.fc1(x.mean(1))))


@pytest.fixture(scope="module")
def dag():
    torch.manual_seed(0)
    return build_from_unstructured_module(awaken(Net()).eval(), torch.randn(2, 3, 8, 8))


@pytest.fixture(scope="module")
def data():
    return torch.randn(96, 3, 8, 8, generator=torch.Generator().manual_seed(5))


def left(algorithm):
    return float(algorithm.losses(0).cost_share)


@pytest.mark.parametrize(
    ("schedule", "shares"),
    [("geometric", [0.5**0.25, 0.5**0.5, 0.5**0.75, 0.5]), ("linear", [0.875, 0.75, 0.625, 0.5])],
)
def test_schedules_end_at_the_target(schedule, shares):
    found = [Schedule(steps=4, shape=schedule).share(0.5, step) for step in (1, 2, 3, 4)]
    assert found == pytest.approx(shares)
    assert found[-1] == 0.5


@pytest.mark.parametrize("target", [0.5, 0.2, 0.05])
@pytest.mark.parametrize("criterion", ["l2", "random", "fpgm"])
def test_steps_meet_the_budget_and_the_plan_says_what_stays(dag, target, criterion):
    algorithm = OneShotChannelPruning(dag, None, target, steps=3, criterion=criterion)
    pruned = algorithm.finalize()
    assert left(algorithm) <= target
    assert left(algorithm) > 0.8 * target
    assert analyze(pruned).cost() == algorithm.analysis.cost(algorithm.plan.atom_counts(algorithm.analysis))
    whole = remove_channels(dag, algorithm.plan)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(pruned(x), whole(x))


@pytest.mark.parametrize("criterion", ["l2", "obs", "fisher"])
@pytest.mark.parametrize("schedule", ["geometric", "linear"])
def test_each_step_is_scored_and_repaired_with_the_data(dag, data, criterion, schedule):
    algorithm = OneShotChannelPruning(dag, None, 0.3, steps=3, criterion=criterion, schedule=schedule)
    seen = []
    algorithm.progress = lambda what, done, total: seen.append((what, done, total))
    algorithm.calibrate(data.split(32))
    assert [each for each in seen if each[0] == "pruning in steps"] == [("pruning in steps", n, 3) for n in (1, 2)]
    pruned = algorithm.finalize()
    assert left(algorithm) <= 0.3
    bare = remove_channels(dag, algorithm.plan)
    with torch.no_grad():
        wanted = dag(data)
        errors = [float((net(data) - wanted).norm() / wanted.norm()) for net in (pruned, bare)]
    assert errors[0] < 0.7 * errors[1]


def test_limits_hold_through_all_steps(dag):
    algorithm = OneShotChannelPruning(
        dag, None, 0.7, steps=3, ignore=("stem.weight:0",), bounds=("fc1=0.5..",), multiple_of=4, kinds=("widths",)
    )
    counts = algorithm.plan.counts()
    assert counts["stem.weight:0"] == 24
    assert counts["fc1.weight:0"] >= 20
    assert counts["conv1.weight:0"] % 4 == 0
    assert counts["qkv.weight:0/1"] == 4
    assert left(algorithm) <= 0.7


def test_other_budgets_are_reached_in_steps_too(dag):
    algorithm = OneShotChannelPruning(dag, None, keep_parameters=0.3, keep_memory=0.7, steps=3)
    analysis = algorithm.analysis
    assert analysis.parameters_count(algorithm.plan.atom_counts(analysis)) <= 0.3 * analysis.parameters_count()


def test_a_target_out_of_reach_is_refused_before_the_first_step(dag):
    with pytest.raises(PlanError, match="cannot be reached"):
        OneShotChannelPruning(dag, None, 1e-5, steps=4)


def test_settings_of_steps_are_checked(dag):
    with pytest.raises(SettingsError, match="steps must be an integer of at least 1"):
        OneShotChannelPruning(dag, None, 0.5, steps=0)
    with pytest.raises(SettingsError, match="schedule must be one of 'geometric', 'linear'"):
        OneShotChannelPruning(dag, None, 0.5, schedule="cosine")


def test_trained_weights_are_cut_by_the_plan_of_all_steps(dag):
    algorithm, x = OneShotChannelPruning(dag, None, 0.5, steps=2), torch.randn(2, 3, 8, 8)
    prepared = algorithm.prepare()
    prepared.train()(x).square().mean().backward()
    torch.optim.SGD(prepared.parameters(), 0.1).step()
    trained = prepared.eval()(x)
    torch.testing.assert_close(algorithm.finalize().eval()(x), trained)


# Plans -----------------------------------------------------------------------------------------------------------


def test_plans_are_put_one_after_the_other():
    first = Plan({"a": (1, 3, 5), "b": (0, 1)}, {"a": 6, "b": 2})
    assert first.then(Plan({"a": (0, 2)}, {"a": 3})) == Plan({"a": (1, 5), "b": (0, 1)}, {"a": 6, "b": 2})
    with pytest.raises(PlanError, match="is for 6 slots of orbit 'a', the first leaves 3 slots"):
        first.then(Plan({"a": (0, 2)}, {"a": 6}))
    with pytest.raises(PlanError, match="the first leaves no such orbit"):
        first.then(Plan({"c": (0,)}, {"c": 2}))


def test_a_saved_plan_is_replayed(dag, tmp_path):
    path = tmp_path / "plan.json"
    first = OneShotChannelPruning(dag, None, 0.4, criterion="random", save_plan=path)
    pruned, x = first.finalize(), torch.randn(2, 3, 8, 8)
    again = OneShotChannelPruning(dag, None, plan=path)
    assert again.plan == first.plan
    assert torch.equal(again.finalize()(x), pruned(x))


@pytest.mark.parametrize("settings", [{"keep_flops": 0.5}, {"ignore": ("fc1",)}, {"criterion": "l1"}, {"steps": 2}])
def test_settings_that_a_plan_leaves_without_effect_are_refused(dag, tmp_path, settings):
    Plan.whole(analyze(dag)).save(tmp_path / "plan.json")
    with pytest.raises(SettingsError, match=f"plan is carried out as it is, so {next(iter(settings))} has no effect"):
        OneShotChannelPruning(dag, None, plan=tmp_path / "plan.json", **settings)


def test_classes_are_held_back(dag):
    algorithm = OneShotChannelPruning(dag, None, 0.8, ignore=(nn.BatchNorm2d,))
    assert algorithm.plan.counts()["stem.weight:0"] == 24


def test_a_plan_is_replayed_from_the_command_line(dag, tmp_path):
    dag.save(tmp_path / "net.safetensors")
    plan = Plan.by_importance(analyze(dag), "random", 0.4)
    plan.save(tmp_path / "plan.json")
    out = tmp_path / "small.safetensors"
    arguments = [tmp_path / "net.safetensors", "--plan", tmp_path / "plan.json", "--out", out]
    assert CliRunner().invoke(prune, [str(each) for each in arguments], catch_exceptions=False).exit_code == 0
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(DagModule.load(out)(x), remove_channels(dag, plan)(x))


def test_a_plan_is_edited_by_the_names_of_layers(dag):
    analysis = analyze(dag)
    plan = Plan.by_importance(analysis, "l2", 0.5)
    edited = plan.resized(analysis, {"fc1": 0.25, "conv1": 30, "qkv.weight:0/1": 2})
    counts = edited.counts()
    assert (counts["fc1.weight:0"], counts["conv1.weight:0"], counts["qkv.weight:0/1"]) == (10, 30, 2)
    assert set(plan.diff(edited)) <= {"fc1.weight:0", "conv1.weight:0", "qkv.weight:0/1"}
    assert set(plan.kept["conv1.weight:0"]) < set(edited.kept["conv1.weight:0"])
    for sizes, message in (
        ({"fc2": 3}, "nothing in the graph matches 'fc2'"), ({"fc1": 41}, "can keep 0 to 40 slots"),
        ({"fc1": 1.5}, "or a share from 0.0 to 1.0"), ({"head": 3}, "names no layers that alone make channels"),
    ):  # fmt: skip
        with pytest.raises(PlanError, match=message):
            plan.resized(analysis, sizes)
