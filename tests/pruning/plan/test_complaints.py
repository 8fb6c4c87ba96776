"""What users of other pruning tools complained about, where it concerns the choice of what goes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.testing import awaken
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.cut import remove_channels
from torch_dag_pruning.latency.latency import Latency
from torch_dag_pruning.plan.plan import Plan


class Block(nn.Module):
    """Attention whose query heads share key heads, and a gated MLP."""

    def __init__(self, width=32, heads=8, shared=4):
        super().__init__()
        self.heads, self.shared = heads, shared
        head = width // heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.kv = nn.Linear(width, width), nn.Linear(width, 2 * shared * head)
        self.proj = nn.Linear(width, width)
        self.up, self.gate, self.down = nn.Linear(width, 64), nn.Linear(width, 64), nn.Linear(64, width)

    def forward(self, x):
        y = self.norm1(x)
        b, n, c = y.shape
        q = self.q(y).reshape(b, n, self.heads, -1).transpose(1, 2)
        k, v = self.kv(y).reshape(b, n, 2, self.shared, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).reshape(b, n, c)
        x = x + self.proj(y)
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Language(nn.Module):
    shape = (6, 32)

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.blocks(x))


class Dense(nn.Module):
    """Two branches that are concatenated, behind a stem that both read."""

    shape = (3, 10, 10)

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 20, 3, padding=1), nn.BatchNorm2d(20))
        self.left, self.right = nn.Conv2d(20, 18, 3, padding=1), nn.Conv2d(20, 30, 1)
        self.fuse, self.head = nn.Conv2d(68, 24, 1), nn.Linear(24, 10)

    def forward(self, x):
        x = F.gelu(self.stem(x))
        x = torch.cat([self.left(x), x, self.right(x)], 1)
        return self.head(F.gelu(self.fuse(F.gelu(x))).mean((2, 3)))


def built(model):
    torch.manual_seed(0)
    x = torch.randn(2, *model.shape)
    return build_from_unstructured_module(awaken(model()).eval(), x), x


@pytest.fixture(scope="module")
def language():
    return built(Language)


@pytest.fixture(scope="module")
def dense():
    return built(Dense)


def share(analysis, plan):
    return float(analysis.cost(plan.atom_counts(analysis))) / float(analysis.cost())


@pytest.mark.parametrize("keep", [0.9, 0.63, 0.4, 0.17])
def test_torch_pruning_495_widths_are_multiples_of_an_eighth_at_every_ratio(language, keep):
    analysis = analyze(*language)
    plan = Plan.by_importance(analysis, "l2", keep, multiple_of=8)
    hidden = [count for key, count in plan.counts().items() if ".gate." in key]
    assert len(hidden) == 3
    assert all(count % 8 == 0 for count in hidden)


@pytest.mark.parametrize("keep", [0.8, 0.5, 0.3])
def test_slimsam_4_equal_blocks_keep_equal_widths(language, keep):
    plan = Plan.by_importance(analyze(*language), "l2", keep, scope="local", multiple_of=4)
    for layer in ("gate.weight:0", "q.weight:0/0", "q.weight:0/1", "q.weight:0/2"):
        counts = [len(slots) for key, slots in plan.kept.items() if key.endswith(layer)]
        assert len(counts) == 3
        assert max(counts) - min(counts) <= 4


@pytest.mark.parametrize("keep", [0.95, 0.8, 0.66, 0.5, 0.35])
def test_torch_pruning_503_an_ignored_layer_stays_as_it_is_at_every_ratio(dense, keep):
    dag, x = dense
    analysis = analyze(dag, x)
    plan = Plan.by_importance(analysis, "random", keep, ignore="right")
    pruned = remove_channels(dag, plan, analysis=analysis)
    assert torch.equal(pruned.state_dict()["right.weight"], dag.state_dict()["right.weight"])
    assert share(analysis, plan) <= keep


@pytest.mark.parametrize("keep", [0.97, 0.9, 0.77, 0.6, 0.45, 0.31, 0.2, 0.1])
@pytest.mark.parametrize("scope", ["global", "local"])
def test_torch_pruning_477_and_490_every_ratio_gives_a_network_that_runs(dense, language, keep, scope):
    for dag, x in (dense, language):
        analysis = analyze(dag, x)
        plan = Plan.by_importance(analysis, "l2", keep, scope=scope)
        pruned = remove_channels(dag, plan, analysis=analysis)  # compares every vertex with the masked graph
        assert pruned(x).shape == dag(x).shape
        assert share(analysis, plan) <= keep


def test_llm_pruner_64_heads_go_by_whole_groups_that_share_a_key(language):
    dag, x = language
    analysis = analyze(dag, x)
    plan = Plan.by_importance(analysis, "l2", 0.9, kinds="heads")
    pruned = remove_channels(dag, plan, analysis=analysis)
    assert sum(plan.counts().values()) < sum(plan.sizes.values())
    for number in range(3):
        shared, queries = (len(plan.kept[f"blocks.{number}.q.weight:0/{place}"]) for place in (0, 1))
        assert pruned.state_dict()[f"blocks.{number}.kv.weight"].shape[0] == 2 * shared * 4
        assert pruned.state_dict()[f"blocks.{number}.q.weight"].shape[0] == shared * queries * 4


@dataclass
class Fussy:
    """A device that is three times slower for widths that are no multiples of 8, and has a price for each call."""

    name: str = "fussy"
    device: str = "made up"

    def measure(self, module, inputs):
        sizes = [size for tensor in module.parameters() for size in tensor.shape[:2] if tensor.dim() > 1]
        slow = 3.0 if any(size % 8 for size in sizes if size > 10) else 1.0
        return 1e-6 + slow * 1e-9 * sum(tensor.numel() for tensor in module.parameters())


def test_torch_pruning_149_and_38_the_target_is_the_time_on_a_device(dense):
    dag, x = dense
    analysis, latency = analyze(dag, x), Latency(on=Fussy(), batch=2)
    now = latency.of(analysis)({})
    plan = Plan.by_importance(analysis, "l2", latency_ms=0.6 * now, latency=latency, multiple_of=8, per="latency")
    pruned = remove_channels(dag, plan, analysis=analysis)
    assert latency.of(analyze(pruned, x))({}) <= 0.6 * now


def test_torch_pruning_347_a_tiny_cut_changes_little(dense):
    dag, x = dense
    analysis = analyze(dag, x)
    plan = Plan.by_importance(analysis, "l2", 0.999)
    gone = {key: plan.sizes[key] - len(slots) for key, slots in plan.kept.items()}
    assert sum(gone.values()) == 1
    changed = remove_channels(dag, plan, analysis=analysis)(x) - dag(x)
    assert float((changed.norm() / dag(x).norm()).detach()) < 0.3


@dataclass(frozen=True)
class Lopsided:
    """Scores that call every slot of one layer worthless next to all others."""

    name: str = "lopsided"
    is_comparable: bool = True

    def score(self, analysis):
        return {o.key: torch.rand(o.n) + (0.0 if o.name == "left" else 1e6) for o in analysis.orbits}


def test_torch_pruning_55_a_global_ranking_empties_no_layer(dense):
    analysis = analyze(*dense)
    plan = Plan.by_importance(analysis, Lopsided(), 0.6)
    assert min(plan.counts().values()) >= 1
    bounded = Plan.by_importance(analysis, Lopsided(), 0.6, bounds={"*": (0.2, None)})
    assert all(len(slots) >= 0.2 * bounded.sizes[key] for key, slots in bounded.kept.items())


@pytest.mark.parametrize("criterion", ["l2", "random", "fpgm"])
def test_torch_pruning_281_every_process_chooses_the_same_slots(criterion):
    plans = []
    for seed in (1, 2):
        dag, x = built(Dense)
        torch.manual_seed(seed)
        plans.append(Plan.by_importance(analyze(dag, x), criterion, 0.5))
    assert plans[0] == plans[1]


class Sorted(nn.Module):
    """A network in which an op mixes the channels of one layer, so that they cannot be told apart."""

    shape = (3, 6, 6)

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 24, 1), nn.Conv2d(24, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.b(torch.sort(self.a(x), dim=1).values)
        return self.head(F.hardswish(self.c(F.hardswish(x))).mean((2, 3)))


def test_aimet_1968_an_op_that_cannot_be_pruned_is_left_out_and_named():
    dag, x = built(Sorted)
    analysis = analyze(dag, x)
    plan = Plan.by_importance(analysis, "l2", 0.7)
    assert share(analysis, plan) <= 0.7
    assert "a.weight:0" not in plan.kept
    assert any("sort" in str(cause) for cause in analysis.locked)


def test_model_optimizer_176_layers_to_leave_alone_are_named(language):
    analysis = analyze(*language)
    ways = ["blocks.1", "blocks.[1]", r"re:^blocks\.1"]
    plans = [Plan.by_importance(analysis, "l2", 0.9, ignore=way, kinds=("heads", "widths")) for way in ways]
    assert plans[0] == plans[1] == plans[2]
    assert all(len(slots) == plans[0].sizes[key] for key, slots in plans[0].kept.items() if "blocks.1." in key)
