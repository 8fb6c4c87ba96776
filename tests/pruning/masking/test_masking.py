"""Masks that are learned: gradients against finite differences, and hard masks against plans and removed graphs."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.nn import functional as F

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.plugins.loading import default_registry
from torch_dag_core.serialization import load
from torch_dag_core.testing import awaken
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.axes.relation import Relation, axis_rule
from torch_dag_pruning.cut import masked_model, remove_channels
from torch_dag_pruning.errors import AnalysisError, PlanError
from torch_dag_pruning.masked_ops.form import Masked
from torch_dag_pruning.masked_ops.mask import Mask
from torch_dag_pruning.masking.masking import Masking
from torch_dag_pruning.plan.plan import Plan


class LayerNorms(nn.Module):
    """A residual stream under layer norms, one of them used twice."""

    shape = (5, 6)

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Linear(6, 8), nn.LayerNorm(8)
        self.up, self.down, self.head = nn.Linear(8, 10), nn.Linear(10, 8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.down(F.gelu(self.up(self.norm(x))))
        return self.head(self.norm(x)).mean(1)


class BatchNorms(nn.Module):
    shape = (3, 6, 6)

    def __init__(self):
        super().__init__()
        self.a, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.b, self.second, self.head = nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x):
        x = F.relu(self.norm(self.a(x)))
        return self.head(F.relu(self.second(self.b(x))).mean((2, 3)))


class GroupNorms(nn.Module):
    shape = (3, 5, 5)

    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 3, 1)

    def forward(self, x):
        return self.b(F.silu(self.norm(self.a(x)))).amax((2, 3))


class Concatenation(nn.Module):
    shape = (3, 5, 5)

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 5, 3), nn.Conv2d(9, 3, 1)
        self.norm = nn.LayerNorm(9)

    def forward(self, x):
        x = torch.cat([self.a(x), self.b(x)], 1).permute(0, 2, 3, 1)
        return self.c(self.norm(x).permute(0, 3, 1, 2)).flatten(1)


class Heads(nn.Module):
    shape = (4, 6)

    def __init__(self):
        super().__init__()
        self.norm, self.qkv, self.proj = nn.LayerNorm(6), nn.Linear(6, 3 * 2 * 4), nn.Linear(8, 6)
        self.stem, self.head = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        x = self.stem(x)
        batch, tokens, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(batch, tokens, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        attended = (q @ k.transpose(-2, -1) * 0.5).softmax(-1) @ v
        x = x + self.proj(attended.transpose(1, 2).reshape(batch, tokens, 8))
        return self.head(x)


NETWORKS = (LayerNorms, BatchNorms, GroupNorms, Concatenation, Heads)


@pytest.fixture(params=NETWORKS, ids=lambda network: network.__name__)
def case(request):
    torch.manual_seed(0)
    x = torch.randn(3, *request.param.shape, dtype=torch.float64)
    dag = build_from_unstructured_module(awaken(request.param()).double().eval(), x)
    return dag, x, analyze(dag)


@pytest.fixture
def small():
    torch.manual_seed(0)
    x = torch.randn(3, *BatchNorms.shape)
    dag = build_from_unstructured_module(awaken(BatchNorms()).eval(), x)
    return dag, x, analyze(dag)


def logits_of(analysis):
    generator = torch.Generator().manual_seed(1)
    return {
        orbit.key: nn.Parameter(torch.randn(orbit.n, generator=generator, dtype=torch.float64))
        for orbit in analysis.orbits
    }


def test_masks_of_one_change_nothing(case):
    dag, x, analysis = case
    masking = Masking(analysis)
    torch.testing.assert_close(masking.dag(x), dag(x), rtol=1e-12, atol=1e-12)
    assert set(masking.masks) == {orbit.key for orbit in analysis.orbits}
    assert all(mask.dtype == torch.float32 and bool((mask == 1).all()) for mask in masking.masks.values())


def test_every_sink_has_a_mask_also_where_everything_stays(case):
    _, _, analysis = case
    masking = Masking(analysis)
    edges = [vertex for vertex in masking.dag.inner_vertices if isinstance(vertex.module, Mask)]
    assert len(edges) == sum(len(relation.sinks) for relation in analysis.relations.values()) > 0
    masking.dag.verify()


def test_gradients_of_logits_are_those_of_finite_differences(case):
    _, x, analysis = case
    masking = Masking(analysis)
    masking.dag.train()
    logits = logits_of(analysis)

    def loss(*values):
        masking.update({key: value.sigmoid() for key, value in zip(logits, values, strict=True)})
        return masking.dag(x).square().sum()

    assert torch.autograd.gradcheck(loss, tuple(logits.values()), rtol=1e-5, atol=1e-7)


def test_a_training_step_reaches_every_logit_and_the_weights(case):
    _, x, analysis = case
    masking = Masking(analysis)
    masking.dag.train()
    logits = logits_of(analysis)
    optimizer = torch.optim.SGD([*logits.values(), *masking.dag.parameters()], 1e-3)
    before = {key: logit.detach().clone() for key, logit in logits.items()}
    for _ in range(2):
        masking.update({key: logit.sigmoid() for key, logit in logits.items()})
        share = analysis.cost(masking.atom_counts()) / analysis.cost()
        optimizer.zero_grad()
        (masking.dag(x).square().mean() + share).backward()
        optimizer.step()
    assert all(bool((before[key] != logit).any()) for key, logit in logits.items())
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in masking.dag.parameters())


@pytest.mark.parametrize("training", [False, True])
def test_a_hard_mask_is_the_masked_model_and_the_removed_one(case, training):
    dag, x, analysis = case
    masking = Masking(analysis)
    for seed in range(3):
        plan = Plan.random(analysis, 0.5, seed)
        masked = masked_model(dag, plan, analysis=analysis).train(training)
        removed = remove_channels(dag, plan, analysis=analysis).train(training)
        masking.update({key: plan.mask(key) for key in plan.kept})
        given = masking.dag.train(training)(x)
        assert torch.equal(given, masked(x))
        torch.testing.assert_close(given, removed(x), rtol=1e-12, atol=1e-12)
        assert masking.harden() == plan


def test_keys_of_the_state_dict_stay(case):
    dag, _, analysis = case
    masking = Masking(analysis)
    assert masking.dag.state_dict().keys() == dag.state_dict().keys()
    assert {name for name, _ in masking.dag.named_parameters()} == {name for name, _ in dag.named_parameters()}


def test_removal_cuts_the_weights_that_were_trained_under_masks(small):
    dag, x, analysis = small
    masking = Masking(analysis)
    plan = Plan.random(analysis, 0.5)
    masking.update({key: plan.mask(key) for key in plan.kept})
    masking.dag.train()(x).square().mean().backward()
    torch.optim.SGD(masking.dag.parameters(), 0.1).step()
    pruned = remove_channels(dag, masking.harden(), analysis=analysis)
    torch.testing.assert_close(pruned.eval()(x), masking.dag.eval()(x), rtol=1e-5, atol=1e-6)
    assert torch.equal(pruned.state_dict()["head.bias"], masking.dag.state_dict()["head.bias"])


def test_a_copy_in_the_middle_of_training_has_the_masks_of_that_moment(case):
    _, x, analysis = case
    masking = Masking(analysis)
    logits = logits_of(analysis)
    masking.update({key: logit.sigmoid() for key, logit in logits.items()})
    twins = copy.deepcopy(masking.dag), masking.dag.clone()
    wanted = masking.dag(x)
    masking.update({key: torch.ones_like(logit) for key, logit in logits.items()})
    for twin in twins:
        assert torch.equal(twin(x), wanted)
        assert not any(buffer.requires_grad for buffer in twin.buffers())
    assert not torch.allclose(masking.dag(x), wanted)


def test_masks_that_are_not_given_stay(small):
    _, x, analysis = small
    masking = Masking(analysis)
    first, second = (orbit.key for orbit in analysis.orbits)
    masking.update({first: torch.linspace(0.1, 1.0, 6)})
    once = masking.dag(x)
    masking.update({second: torch.full((4,), 0.5)})
    masking.update({second: torch.ones(4)})
    assert torch.equal(masking.dag(x), once)
    assert masking.counts()[first] == pytest.approx(3.3)


def test_costs_of_soft_masks_are_differentiable(small):
    _, _, analysis = small
    masking = Masking(analysis)
    mask = torch.full((6,), 0.5, requires_grad=True)
    masking.update({analysis.orbits[0].key: mask})
    cost = analysis.cost(masking.atom_counts())
    assert float(cost.detach()) == pytest.approx(analysis.cost({analysis.orbits[0].atom.id: 3}))
    cost.backward()
    assert bool((mask.grad > 0).all())


def test_hardening_leaves_what_an_orbit_needs_and_lets_others_vanish(small):
    _, _, analysis = small
    masking = Masking(analysis)
    first, second = analysis.orbits
    masking.update({first.key: torch.tensor([0.1, 0.5, 0.6, 0.0, 0.9, 0.2]), second.key: torch.zeros(4)})
    assert masking.harden().kept == {first.key: (2, 4), second.key: ()}
    assert masking.harden(0.1).kept[first.key] == (1, 2, 4, 5)


def test_hardening_keeps_the_largest_masks_where_slots_are_needed():
    class Variance(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.Linear(4, 6)

        def forward(self, x):
            return self.a(x).var(-1)

    analysis = analyze(build_from_unstructured_module(Variance(), torch.randn(2, 4)))
    (orbit,) = analysis.orbits
    assert orbit.minimum == 2
    masking = Masking(analysis)
    masking.update({orbit.key: torch.tensor([0.1, 0.3, 0.2, 0.0, 0.0, 0.25])})
    assert masking.harden().kept == {orbit.key: (1, 5)}


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({"nonesuch": torch.ones(6)}, "the graph has no orbit 'nonesuch'"),
        ({"a.weight:0": torch.ones(5)}, r"must be a tensor of 6 floats or bools, got torch.float32 of shape \(5,\)"),
        ({"a.weight:0": torch.ones(6, dtype=torch.int64)}, "got torch.int64"),
        ({"a.weight:0": [1.0] * 6}, r"got \[1.0"),
    ],
)
def test_masks_that_do_not_fit_are_refused_and_change_nothing(small, masks, message):
    masking = Masking(small[2])
    before = masking.masks
    with pytest.raises(PlanError, match=message):
        masking.update({small[2].orbits[1].key: torch.zeros(4), **masks})
    assert all(masking.masks[key] is mask for key, mask in before.items())


def test_a_mask_with_nan_is_not_hardened(small):
    masking = Masking(small[2])
    masking.update({"a.weight:0": torch.full((6,), float("nan"))})
    with pytest.raises(PlanError, match=r"the mask of orbit 'a\.weight:0' holds NaN"):
        masking.harden()


def test_a_graph_that_was_edited_since_is_refused(small):
    dag, _, analysis = small
    dag.replace_module(dag.get_vertex_by_name("norm"), nn.Identity())
    with pytest.raises(AnalysisError, match="the graph was edited after it was analysed"):
        Masking(analysis)


def test_a_graph_under_learned_masks_can_be_saved(small, tmp_path):
    _, x, analysis = small
    masking = Masking(analysis)
    masking.update({"a.weight:0": torch.linspace(0.0, 1.0, 6)})
    masking.dag.save(tmp_path / "masked.safetensors", registry=default_registry())
    loaded = load(tmp_path / "masked.safetensors", registry=default_registry())
    assert torch.equal(loaded.eval()(x), masking.dag.eval()(x))
    assert loaded.state_dict().keys() == masking.dag.state_dict().keys()


class Spread(nn.Module):
    def forward(self, x):
        return x - x.mean(-1, keepdim=True)


class FixedSpread(nn.Module):
    """A masked form that keeps the masks it was made with."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def forward(self, x):
        return x - (x * self.mask).sum(-1, keepdim=True) / self.mask.sum()


class UpdatableSpread(Masked):
    def forward(self, x):
        mask = self.mask(x, [x.dim() - 1])
        return x - (x * mask).sum(-1, keepdim=True) / mask.sum()


def spread_rule(form):
    @axis_rule("tests.spread")
    def spread(ctx):
        axes = list(ctx.inputs[0])
        return Relation([axes], masked=lambda module, mask_of: form(module, axes[-1], mask_of), statistics=(axes[-1],))

    return spread


@pytest.fixture
def spread(monkeypatch):
    """Return the analysis of a net with an op of a plugin whose rule builds this masked form."""
    from torch_dag_core.graph.dag import DagModule
    from torch_dag_core.plugins.registry import OpSpec
    from torch_dag_pruning.analysis import analysis as module

    def build(form):
        registry = default_registry().copy()
        registry.add(OpSpec(key="tests.spread", target=Spread), owner="tests")
        rules = {**module.axis_rules(), "tests.spread": spread_rule(form).rule}
        monkeypatch.setattr(module, "axis_rules", lambda _: rules)
        torch.manual_seed(0)
        dag = DagModule()
        a = dag.add_vertex("a", nn.Linear(4, 6), [dag.add_input("x")])
        dag.set_output(dag.add_vertex("b", nn.Linear(6, 2), [dag.add_vertex("spread", Spread(), [a])]))
        return analyze(dag, torch.randn(2, 4), registry=registry)

    return build


def test_a_masked_form_of_a_plugin_takes_new_masks(spread):
    masking = Masking(spread(lambda module, axis, mask_of: UpdatableSpread(module, [axis], mask_of)))
    mask, x = torch.rand(6, requires_grad=True), torch.randn(2, 4)
    before = masking.dag(x)
    masking.update({masking.analysis.orbits[0].key: mask})
    assert not torch.allclose(masking.dag(x), before)
    masking.dag(x).sum().backward()
    assert bool((mask.grad != 0).all())


def test_a_masked_form_that_takes_no_new_masks_is_refused_by_name(spread):
    analysis = spread(lambda module, axis, mask_of: FixedSpread(mask_of(axis)))
    masked = masked_model(analysis._original, Plan.random(analysis, 0.5), analysis=analysis)
    assert masked(torch.randn(2, 4)).shape == (2, 2)
    with pytest.raises(AnalysisError, match="the masks of 'spread' cannot be learned: FixedSpread has no update_masks"):
        Masking(analysis)


# torch.compile itself looks at the .grad of every buffer, and hides the warning where warnings are no errors.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_learned_masks_compile_once_and_are_followed(case):
    _, x, analysis = case
    masking = Masking(analysis)
    counter = CompileCounter()
    compiled = torch.compile(masking.dag, fullgraph=True, backend=counter)
    logits = logits_of(analysis)
    for step in range(3):
        masking.update({key: (logit + step).sigmoid() for key, logit in logits.items()})
        torch.testing.assert_close(compiled(x), masking.dag(x))
    compiled(x).square().sum().backward()
    assert all(bool((logit.grad != 0).any()) for logit in logits.values())
    assert counter.frame_count == 1
