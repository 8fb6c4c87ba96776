"""What is held back from pruning, how it is named, and how far pruning goes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.testing import awaken
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.cut import remove_channels
from torch_dag_pruning.errors import PlanError
from torch_dag_pruning.plan.kinds import orbit_kinds
from torch_dag_pruning.plan.limits import Limits, Width
from torch_dag_pruning.plan.plan import Plan
from torch_dag_pruning.plan.selectors import Parts


class Bottleneck(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, hidden, 1, bias=False), nn.BatchNorm2d(hidden)
        self.conv2, self.bn2 = nn.Conv2d(hidden, hidden, 3, padding=1, groups=4), nn.BatchNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, width, 1)

    def forward(self, x):
        return F.relu(x + self.conv3(F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))))


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        return x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.stages = nn.Sequential(Bottleneck(16, 24), Bottleneck(16, 32))
        self.attention = Attention(16, 4)
        self.fc1, self.head = nn.Linear(16, 40), nn.Linear(40, 10)

    def forward(self, x):
        x = self.stages(self.stem(x)).flatten(2).transpose(1, 2)
        return self.head(F.gelu(self.fc1(self.attention(x).mean(1))))


STREAM, HIDDEN = "stem.weight:0", "fc1.weight:0"
HEADS, HEAD_WIDTHS = "attention.qkv.weight:0/1", "attention.qkv.weight:0/2"


@pytest.fixture(scope="module")
def dag():
    torch.manual_seed(0)
    return build_from_unstructured_module(awaken(Net()).eval(), torch.randn(2, 3, 8, 8))


@pytest.fixture(scope="module")
def analysis(dag):
    return analyze(dag)


def pruned(analysis, keep=0.7, criterion="random", **limits):
    """Return the orbits that lose slots, each with the number that stays."""
    plan = Plan.by_importance(analysis, criterion, keep, **limits)
    return {key: len(slots) for key, slots in plan.kept.items() if len(slots) < plan.sizes[key]}


def test_kinds(analysis):
    kinds = orbit_kinds(analysis)
    assert {kinds[STREAM], kinds[HIDDEN]} == {"widths"}
    assert (kinds[HEADS], kinds[HEAD_WIDTHS]) == ("heads", "head_widths")
    assert sorted(kinds.values()).count("groups") == 2
    groups = [key for key, kind in kinds.items() if kind == "groups"]
    assert {orbit.n for orbit in analysis.orbits if orbit.key in groups} == {4}


@pytest.mark.parametrize("kind", ["widths", "heads", "head_widths", "groups"])
def test_one_kind_alone_is_pruned(analysis, kind):
    kinds = orbit_kinds(analysis)
    assert {kinds[key] for key in pruned(analysis, 0.95, kinds=(kind,))} == {kind}
    assert pruned(analysis, 0.95, kinds=kind) == pruned(analysis, 0.95, kinds=(kind,))


@pytest.mark.parametrize(
    "selector",
    [
        "attention",
        "attention.qkv",
        "att*",
        "*.qkv",
        "re:^attention",
        "re:qkv$",
        "class:core.scaled_dot_product_attention",
    ],
)
def test_layers_are_named_in_many_ways(analysis, selector):
    keys = Parts(analysis).touched("ignore", selector)
    assert {HEADS, HEAD_WIDTHS} <= keys
    assert HIDDEN not in keys


def test_classes_name_layers_with_their_subclasses(analysis):
    parts = Parts(analysis)
    groups = {orbit.key for orbit in analysis.orbits if orbit.name.startswith("stages")}
    assert parts.touched("ignore", nn.Conv2d) == groups | {STREAM}
    assert parts.touched("ignore", nn.modules.conv._ConvNd) == parts.touched("ignore", "class:Conv2d")
    assert parts.touched("ignore", nn.BatchNorm2d) == groups


def test_an_ignored_layer_keeps_all_that_it_reads_holds_and_returns(dag, analysis):
    plan = Plan.by_importance(analysis, "random", 0.6, ignore="stages.1")
    cut = remove_channels(dag, plan, analysis=analysis)
    for name, tensor in dag.state_dict().items():
        if name.startswith("stages.1."):
            assert torch.equal(cut.state_dict()[name], tensor)
    assert plan.counts()[STREAM] == 16
    assert plan.counts()[HIDDEN] < 40


def test_one_dimension_is_held_back_by_its_place(analysis):
    assert Parts(analysis).touched("ignore", "fc1.weight:0") == {HIDDEN}
    assert Parts(analysis).touched("ignore", "head.weight:1") == {HIDDEN}
    assert Parts(analysis).touched("ignore", "*.qkv.weight:0*") == {HEADS, HEAD_WIDTHS}
    assert HIDDEN not in pruned(analysis, ignore=("head.weight:1",))


def test_stem_and_head_are_roles(analysis):
    assert Parts(analysis).touched("ignore", "@stem") == {STREAM}
    assert Parts(analysis).touched("ignore", "@head") == {HIDDEN}
    assert {STREAM, HIDDEN}.isdisjoint(pruned(analysis, 0.8, ignore=("@stem", "@head")))


def test_only_what_the_named_layers_make_is_pruned(analysis):
    assert set(pruned(analysis, 0.999, only="fc1")) == {HIDDEN}
    assert set(pruned(analysis, 0.8, only=("stages",))) <= {o.key for o in analysis.orbits if "stages" in o.key}
    assert set(pruned(analysis, 0.95, only="attention")) <= {HEADS, HEAD_WIDTHS}
    everything_that_adds_to_the_stream = ("stem", "*.conv3", "attention.proj")
    with pytest.raises(PlanError, match=r"only: 'stem' names no layers that alone make channels"):
        pruned(analysis, 0.8, only="stem")
    assert set(pruned(analysis, 0.8, only="re:stem|conv3|proj")) == {STREAM}
    with pytest.raises(PlanError, match="names no layers that alone make"):
        pruned(analysis, 0.8, only=everything_that_adds_to_the_stream)
    assert set(pruned(analysis, 0.8, only=STREAM)) == {STREAM}


def test_only_and_ignore_work_together(analysis):
    assert set(pruned(analysis, 0.9, only=("stages",), ignore=("stages.0",))) <= {
        orbit.key for orbit in analysis.orbits if orbit.key.startswith("stages.1")
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ignore": "attension"}, r"ignore: nothing in the graph matches 'attension'; did you mean 'attention"),
        ({"only": "class:LSTM"}, "only: nothing in the graph matches 'class:LSTM'"),
        ({"ignore": "re:("}, "ignore: '\\(' is no regular expression"),
        ({"ignore": "@tail"}, "ignore: there is no role '@tail'; there are @stem, @head"),
        ({"ignore": (3,)}, "ignore takes names, patterns and classes of modules, got 3"),
        ({"ignore": (nn.LSTM,)}, "ignore: nothing in the graph matches 'LSTM'"),
        ({"kinds": "depth"}, "there is no kind 'depth' of orbits; there are 'widths', 'heads'"),
        ({"ignore": "*"}, r"ignore=\('\*',\) leaves nothing to prune"),
        ({"bounds": {"fc1": (0.9, 0.1)}}, r"orbit 'fc1\.weight:0' of 40 slots must keep at least 36 and at most 4"),
        ({"bounds": {"fc1": (2.0, None)}}, "bounds of 'fc1' must be the smallest and largest number of slots"),
        ({"bounds": ("fc1",)}, "bounds are written SELECTOR=LEAST..MOST"),
        ({"bounds": ("fc1=a..b",)}, "bounds are written SELECTOR=LEAST..MOST"),
        ({"bounds": ("head=1..",)}, "bounds: 'head' names no layers that alone make channels"),
        ({"multiple_of": ("fc1=x",)}, "multiple_of is an integer, or written SELECTOR=INTEGER"),
        ({"multiple_of": {"fc1": 0}}, "multiple_of must be at least 1"),
    ],
)
def test_mistakes_are_refused_by_name(analysis, settings, message):
    with pytest.raises(PlanError, match=message):
        Plan.by_importance(analysis, "l2", 0.7, **settings)


@pytest.mark.parametrize("bounds", [{"fc1": (20, None)}, ("fc1=20..",), {"fc1": (0.5, None)}, "fc1=0.5.."])
def test_an_orbit_keeps_at_least_its_bound(analysis, bounds):
    plan = Plan.by_importance(analysis, "random", 0.1, bounds=bounds)
    assert plan.counts()[HIDDEN] == 20


def test_an_orbit_keeps_at_most_its_bound(analysis):
    counts = Plan.by_importance(analysis, "l2", 1.0, bounds={HIDDEN: (None, 0.25), "stages.0": (None, 3)}).counts()
    assert counts[HIDDEN] == 10
    assert counts[STREAM] == 16
    assert all(count <= 3 for key, count in counts.items() if key.startswith("stages.0"))


def test_multiples_are_given_for_all_orbits_or_for_some(analysis):
    counts = Plan.by_importance(analysis, "random", 0.5, multiple_of={"fc1": 16}).counts()
    assert counts[HIDDEN] in (16, 32, 40)
    assert Limits.of(multiple_of=("", "fc1=16")[1:]) == Limits.of(multiple_of={"fc1": 16})
    counts = Plan.by_importance(analysis, "random", 0.5, multiple_of=("4", "fc1=16")).counts()
    assert counts[HIDDEN] in (16, 32, 40)
    assert counts[STREAM] % 4 == 0
    assert Limits.of(multiple_of=8) == Limits.of(multiple_of="8")


def test_a_budget_out_of_reach_says_that_layers_are_held_back(analysis):
    with pytest.raises(PlanError, match=r"cannot be reached: .* stay \(1 of 10 orbits are held back\)"):
        Plan.by_importance(analysis, "l2", 0.01, ignore="fc1.weight:0")


@pytest.mark.parametrize(
    ("width", "count", "allowed"),
    [
        (Width("a", 20, 1, 20, 8), 9, 16), (Width("a", 20, 1, 20, 8), 17, 20), (Width("a", 20, 1, 16, 8), 17, 16),
        (Width("a", 20, 8, 20, 8), 0, 8), (Width("a", 20, 20, 20, 1), 3, 20),
    ],
)  # fmt: skip
def test_counts_are_rounded_up_within_bounds(width, count, allowed):
    assert width.allowed(count) == allowed
