"""Masked equals removed: on every small network, at every vertex, in both precisions."""

from __future__ import annotations

import copy

import pytest
import torch

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.cut import masked_model, removal_proof, remove_channels
from torch_dag_pruning.plan.plan import Plan


@pytest.fixture
def case(network_and_input):
    model, x = network_and_input
    dag = build_from_unstructured_module(model, x)
    return dag, x, analyze(dag, x)


@pytest.fixture(params=[0, 1, 2])
def pruned(case, request):
    dag, x, analysis = case
    plan = Plan.random(analysis, 0.6, seed=request.param)
    return dag, x, analysis, plan, remove_channels(dag, plan, example_inputs=x)


def test_every_network_has_orbits(case):
    assert case[2].orbits


def test_removed_equals_masked_at_every_vertex(pruned):
    _, _, analysis, plan, smaller = pruned
    single = removal_proof(analysis, plan, smaller)
    double = removal_proof(analysis, plan, smaller, dtype=torch.float64)
    assert single.worst < 1e-4
    assert double.worst < 1e-12
    assert double.vertices > len(smaller.inner_vertices) / 2
    assert double.effect > 0.01


def test_removed_equals_masked_at_another_batch_size(pruned):
    dag, x, analysis, plan, smaller = pruned
    x = torch.cat([x, x.flip(0), x])
    wanted = masked_model(dag, plan, analysis=analysis).eval()(x)
    torch.testing.assert_close(smaller.eval()(x), wanted, rtol=1e-4, atol=1e-4)


def test_flops_and_sizes_are_the_predicted_integers(pruned):
    _, x, analysis, plan, smaller = pruned
    counts = plan.atom_counts(analysis)
    assert analyze(smaller, x).cost() == analysis.cost(counts)
    assert sum(p.numel() for p in smaller.parameters()) == analysis.parameters_count(counts)
    assert analysis.cost(counts) < analysis.cost()


def test_arguments_are_not_changed(case):
    dag, x, analysis = case
    text, state = str(dag), copy.deepcopy(dag.state_dict())
    plan = Plan.random(analysis, 0.5)
    before = copy.deepcopy(plan)
    masked_model(dag, plan)
    remove_channels(dag, plan, example_inputs=x)
    assert str(dag) == text
    assert plan == before
    assert all(torch.equal(state[name], tensor) for name, tensor in dag.state_dict().items())


def test_keeping_everything_changes_nothing(case):
    dag, x, analysis = case
    smaller = remove_channels(dag, Plan.whole(analysis), analysis=analysis)
    assert torch.equal(smaller.eval()(x), dag.eval()(x))
    assert smaller.state_dict().keys() == dag.state_dict().keys()


def test_result_shares_nothing_with_the_argument(case):
    dag, _, analysis = case
    smaller = remove_channels(dag, Plan.random(analysis, 0.7), analysis=analysis)
    mine = {tensor.untyped_storage().data_ptr() for tensor in smaller.state_dict().values()}
    for graph in (dag, analysis.dag):
        assert mine.isdisjoint(tensor.untyped_storage().data_ptr() for tensor in graph.state_dict().values())


def test_names_keys_flags_and_types_stay(case):
    dag, x, analysis = case
    dag.train()
    frozen = next(iter(dag.parameters()))
    frozen.requires_grad_(False)
    dag.double()
    plan = Plan.random(analysis, 0.6)
    smaller = remove_channels(dag, plan, example_inputs=x.double() if x.is_floating_point() else x)
    extra = smaller.state_dict().keys() - dag.state_dict().keys()
    assert dag.state_dict().keys() <= smaller.state_dict().keys()
    assert all("_part" in name for name in extra)  # constants that are cut in several ways
    assert [v.name for v in smaller.inner_vertices if v.name in dag] == [
        v.name for v in analysis.dag.inner_vertices if v.name in dag
    ]
    assert all(module.training for module in smaller.modules())
    old, new = dict(dag.named_parameters()), dict(smaller.named_parameters())
    assert {name: p.requires_grad for name, p in new.items()} == {name: p.requires_grad for name, p in old.items()}
    assert all(p.dtype == torch.float64 for p in new.values())
