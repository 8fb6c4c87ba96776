"""What a pruned graph is good for: saving, loading without source, training; and the optimizer that comes along."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import torch_dag_core
from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.graph.builtin_ops import Constant
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.testing import awaken
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.cut import Cut, carry_optimizer, masked_model, removal_proof, remove_channels
from torch_dag_pruning.errors import PruningWarning, RemovalError, RemovalMismatchError
from torch_dag_pruning.plan.plan import Plan


@pytest.fixture
def case(network_and_input):
    model, x = network_and_input
    dag = build_from_unstructured_module(model, x)
    analysis = analyze(dag, x)
    plan = Plan.random(analysis, 0.6, seed=3)
    return dag, x, analysis, plan, remove_channels(dag, plan, analysis=analysis)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 1)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        return self.head(F.relu(self.b(F.relu(self.norm(self.a(x))))).mean((2, 3)))


@pytest.fixture
def small():
    torch.manual_seed(0)
    model, x = awaken(Small()).eval(), torch.randn(4, 3, 6, 6)
    dag = build_from_unstructured_module(model, x)
    return model, dag, x, analyze(dag, x)


def test_file_loads_to_the_same_and_trains(case, tmp_path):
    _, x, _, _, smaller = case
    smaller.save(tmp_path / "pruned.safetensors")
    loaded = DagModule.load(tmp_path / "pruned.safetensors")
    assert torch.equal(loaded.eval()(x), smaller.eval()(x))
    before = {name: p.clone() for name, p in loaded.named_parameters()}
    loaded.train()(x).square().sum().backward()
    torch.optim.SGD(loaded.parameters(), 1e-3).step()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in loaded.parameters())
    assert any(not torch.equal(before[name], p) for name, p in loaded.named_parameters())


def test_file_needs_neither_the_source_nor_pruning(small, tmp_path):
    _, dag, x, analysis = small
    smaller = remove_channels(dag, Plan.keeping(analysis, {analysis.orbits[0].key: []}), analysis=analysis)
    smaller.save(tmp_path / "pruned.safetensors")
    torch.save((x, smaller.eval()(x).detach()), tmp_path / "pair.pt")
    code = f"""
        import sys, torch
        from torch_dag_core.serialization import load
        x, wanted = torch.load({str(tmp_path / "pair.pt")!r})
        assert torch.equal(load({str(tmp_path / "pruned.safetensors")!r}).eval()(x), wanted)
        assert not any(name.startswith("torch_dag_pruning") for name in sys.modules)
        print("same")
    """
    source = str(torch_dag_core.__path__[0]).removesuffix("/torch_dag_core")
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env={"PYTHONPATH": source, "TORCH_DAG_PLUGINS": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.stdout.strip() == "same", result.stderr


def test_weights_are_those_of_the_kept_slots(small):
    model, dag, _, analysis = small
    keep = [1, 4, 7]
    key = next(orbit.key for orbit in analysis.orbits if orbit.key.startswith("a.weight"))
    state = remove_channels(dag, Plan.keeping(analysis, {key: keep}), analysis=analysis).state_dict()
    assert torch.equal(state["a.weight"], model.a.weight[keep])
    assert torch.equal(state["norm.running_var"], model.norm.running_var[keep])
    assert torch.equal(state["b.weight"], model.b.weight[:, keep])
    assert torch.equal(state["head.weight"], model.head.weight)


def test_removed_equals_the_dense_model_with_the_consumers_zeroed(small):
    model, dag, x, analysis = small
    key = next(orbit.key for orbit in analysis.orbits if orbit.key.startswith("a.weight"))
    smaller = remove_channels(dag, Plan.keeping(analysis, {key: [0, 2, 5]}), analysis=analysis)
    with torch.no_grad():
        model.b.weight[:, [1, 3, 4, 6, 7]] = 0
    torch.testing.assert_close(smaller.eval()(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("network_name", ["SharedTable"])
def test_constants_are_cut_for_each_use_and_shared_where_the_cut_is_the_same(case):
    dag, _, _, _, smaller = case

    def tables(graph):
        return [vertex for vertex in graph.inner_vertices if isinstance(vertex.module, Constant)]

    assert [vertex.name for vertex in tables(dag)] == ["table"]
    cut = {tuple(vertex.module.value.tolist()) for vertex in tables(smaller)}
    assert len(cut) == len(tables(smaller)) == 3
    assert all(set(part) < set(dag.state_dict()["table"].tolist()) for part in cut)


def test_no_op_of_the_result_is_unknown_to_the_core(case):
    _, _, analysis, _, smaller = case
    assert all(analysis.registry.for_module(vertex.module).key.startswith("core.") for vertex in smaller.inner_vertices)


# The proof -------------------------------------------------------------------------------------------------------


def test_proof_names_the_first_vertex_that_differs(small):
    _, dag, _, analysis = small
    plan = Plan.random(analysis, 0.5)
    smaller = remove_channels(dag, plan, analysis=analysis)
    with torch.no_grad():
        dict(smaller.named_parameters())["b.weight"].mul_(1.01)
    with pytest.raises(RemovalMismatchError, match="vertex 'b' differs by") as caught:
        Cut(analysis, plan).prove(smaller)
    assert caught.value.vertex == "b"
    assert 1e-3 < caught.value.difference < 0.0102


def test_double_precision_decides_every_mismatch(small, monkeypatch):
    _, dag, _, analysis = small
    plan = Plan.random(analysis, 0.5)
    smaller = remove_channels(dag, plan, analysis=analysis)
    asked = []
    compare = Cut.compare

    def recorded(*args):
        asked.append(args[3:])
        return compare(*args)

    monkeypatch.setattr(Cut, "compare", recorded)
    for factor, precisions in ((1.0, [()]), (1.001, [(), (torch.float64,)]), (1.1, [(), (torch.float64,)])):
        changed = smaller.clone()
        with torch.no_grad():
            dict(changed.named_parameters())["b.weight"].mul_(factor)
        asked.clear()
        wrong = pytest.raises(RemovalMismatchError, match="vertex 'b' differs by")
        with wrong if factor != 1.0 else contextlib.nullcontext():
            Cut(analysis, plan).prove(changed)
        assert asked == precisions


def test_proof_finds_a_wrong_shape(small):
    _, dag, _, analysis = small
    smaller = remove_channels(dag, Plan.random(analysis, 0.5), analysis=analysis)
    with pytest.raises(RemovalMismatchError, match="has the shape"):
        Cut(analysis, Plan.random(analysis, 0.8)).prove(smaller)


def test_proof_accepts_what_only_single_precision_finds_different(small):
    """A sum that cancels amplifies rounding errors in single precision, and is exact enough in double."""
    model, _, x, _ = small

    class Cancelling(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            y = self.inner(x)
            return (y + 1e6) - 1e6

    dag = build_from_unstructured_module(Cancelling(), x)
    analysis = analyze(dag, x)
    plan = Plan.random(analysis, 0.5)
    result = Cut(analysis, plan).prove(remove_channels(dag, plan, verify=False, analysis=analysis))
    assert result.worst < 1e-6


class Deep(nn.Module):
    """Layers that amplify rounding errors until single precision has no digit left; torch sorts what they give."""

    def __init__(self, sorts):
        super().__init__()
        self.sorts, self.head = sorts, nn.Linear(16, 3)
        self.layers = nn.Sequential(*(nn.Linear(6 if i == 0 else 16, 16) for i in range(30)))

    def forward(self, x):
        for layer in self.layers:
            x = torch.sin(20 * layer(x))
        if self.sorts:
            places = x.mean(2).topk(3, dim=1).indices
            x = x.gather(1, places[..., None].expand(-1, -1, 16))
        return self.head(x)


@pytest.mark.parametrize("sorts", [False, True])
def test_rounding_does_not_accumulate(sorts):
    torch.manual_seed(0)
    dag = build_from_unstructured_module(Deep(sorts).eval(), torch.randn(2, 7, 6))
    analysis = analyze(dag)
    cut = Cut(analysis, Plan.random(analysis, 0.6))
    assert len(analysis.orbits) == 30
    assert cut.compare(cut.removed()).worst < 1e-4


def test_equal_values_are_sorted_alike():
    """Among tokens that are equal but for rounding, both graphs pick the same ones."""

    class Alike(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Linear(6, 16), nn.Linear(16, 16), nn.Linear(16, 3)

        def forward(self, x):
            x = self.b(torch.relu(self.a(x)))
            x = torch.cat([x, x.flip(1)], 1)
            places = x.softmax(-1).mean(2).argsort(1)[:, :3]
            return self.head(x.gather(1, places[..., None].expand(-1, -1, 16)))

    torch.manual_seed(0)
    dag = build_from_unstructured_module(Alike().eval(), torch.randn(2, 7, 6))
    analysis = analyze(dag)
    for seed in range(3):
        cut = Cut(analysis, Plan.random(analysis, 0.6, seed))
        assert cut.prove(cut.removed()).worst < 1e-4


def test_warns_where_pruning_has_no_effect(small):
    model, _, x, _ = small
    with torch.no_grad():
        model.head.weight.zero_()
    dag = build_from_unstructured_module(model, x)
    analysis = analyze(dag, x)
    with pytest.warns(PruningWarning, match="changed nothing"):
        remove_channels(dag, Plan.random(analysis, 0.5), analysis=analysis)


def test_proof_reads_as_a_sentence(small):
    _, dag, _, analysis = small
    plan = Plan.random(analysis, 0.5)
    text = str(removal_proof(analysis, plan, remove_channels(dag, plan, analysis=analysis)))
    assert "masked and removed agree to" in text
    assert "float32" in text


def test_emptied_output_is_refused(small):
    _, dag, x, _ = small
    analysis = analyze(dag, x, free_outputs=["head"])
    key = next(orbit.key for orbit in analysis.orbits if orbit.key.startswith("head.weight"))
    with pytest.raises(RemovalError, match="nothing is left of the output 'head'"):
        remove_channels(dag, Plan.keeping(analysis, {key: []}), analysis=analysis)
    smaller = remove_channels(dag, Plan.keeping(analysis, {key: [1, 3]}), analysis=analysis)
    torch.testing.assert_close(smaller.eval()(x), dag.eval()(x)[:, [1, 3]])


# The optimizer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [lambda p: torch.optim.SGD(p, 1e-3, momentum=0.9), lambda p: torch.optim.AdamW(p, 1e-2, weight_decay=0.1)],
    ids=["sgd", "adamw"],
)
def test_optimizer_steps_as_that_of_the_masked_model(case, make):
    """One more step after removal moves the kept weights as far as it would have before."""
    dag, x, analysis, plan, _ = case
    dag.eval()
    optimizer = make(dag.parameters())
    for _ in range(2):
        optimizer.zero_grad()
        masked_model(dag, plan, analysis=analysis)  # the analysis shares tensors with the graph
        dag(x).square().mean().backward()
        optimizer.step()
    smaller = remove_channels(dag, plan, analysis=analysis)
    carried = carry_optimizer(optimizer, dag, smaller, plan, analysis=analysis)
    assert type(carried) is type(optimizer)
    assert {id(p) for group in carried.param_groups for p in group["params"]} == {id(p) for p in smaller.parameters()}
    for parameter, state in carried.state.items():
        assert all(
            not isinstance(value, torch.Tensor) or value.shape in (parameter.shape, torch.Size([]))
            for value in state.values()
        )
    smaller(x).square().mean().backward()
    carried.step()
    assert all(parameter.isfinite().all() for parameter in smaller.parameters())


def test_optimizer_keeps_the_momenta_of_kept_slots(small):
    _, dag, x, analysis = small
    optimizer = torch.optim.SGD([{"params": list(dag.parameters()), "lr": 0.3}], 0.1, momentum=0.9)
    dag(x).square().mean().backward()
    optimizer.step()
    key = next(orbit.key for orbit in analysis.orbits if orbit.key.startswith("a.weight"))
    plan = Plan.keeping(analysis, {key: [1, 6]})
    smaller = remove_channels(dag, plan, analysis=analysis)
    carried = carry_optimizer(optimizer, dag, smaller, plan, analysis=analysis)
    old = optimizer.state[dict(dag.named_parameters())["b.weight"]]["momentum_buffer"]
    new = carried.state[dict(smaller.named_parameters())["b.weight"]]["momentum_buffer"]
    assert torch.equal(new, old[:, [1, 6]])
    assert carried.param_groups[0]["lr"] == 0.3
