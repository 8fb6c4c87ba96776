"""Which layers are candidates, what the others are skipped for, and the bound."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from torch_dag_core.errors import SettingsError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.inputs import InputSpec
from torch_dag_core.ops.attention import Attention
from torch_dag_llrc import LowRankConfig, analyze_ranks


def analyze(dag, shape, **settings):
    return analyze_ranks(dag, shape, LowRankConfig(keep_flops=1.0, training_steps=1, **settings))


def names(report):
    return [each.name for each in report.candidates]


class OwnLinear(nn.Linear):
    pass


@pytest.mark.parametrize(
    ("module", "shape", "reason"),
    [
        (nn.Conv2d(32, 32, 3, groups=32), (32, 8, 8), "it has several groups"),
        (nn.Conv2d(32, 32, 3, groups=2), (32, 8, 8), "it has several groups"),
        (nn.ConvTranspose2d(32, 32, 3), (32, 8, 8), "only Linear and Conv2d can be factored"),
        (nn.Conv1d(32, 32, 3), (32, 8), "only Linear and Conv2d can be factored"),
        (OwnLinear(64, 64), (64,), "only Linear and Conv2d can be factored"),
        (nn.Linear(64, 2), (64,), "no rank of at least 8 in scheme 'auto' costs less than the layer"),
        (nn.Linear(2, 64), (2,), "no rank of at least 8 in scheme 'auto' costs less than the layer"),
    ],
)
def test_nothing_is_skipped_in_silence(chain, module, shape, reason):
    report = analyze(chain(module), shape)
    assert report.candidates == ()
    (skipped,) = report.skipped
    assert (skipped.name, skipped.reason) == ("a", reason)
    assert report.removable_share == 0
    assert f"left as it is: a (100.00%): {reason}" in str(report)


def test_composite_ops_stay(chain):
    report = analyze(chain(Attention(64, 4, 16, 64, scale=0.25)), (5, 64))
    assert [each.reason for each in report.skipped] == ["it is a composite op, and those are not taken apart yet"]


def test_protected_classes_stay(chain):
    report = analyze(chain(nn.Linear(64, 64)), (64,), ignore_classes=(nn.Linear,))
    assert report.skipped[0].reason == "its class is in ignore_classes"


def test_shared_modules_and_tied_weights_stay(chain):
    shared = nn.Linear(64, 64)
    first, second = nn.Linear(64, 64), nn.Linear(64, 64)
    second.weight = first.weight
    for dag in (chain(shared, nn.ReLU(), shared), chain(first, nn.ReLU(), second)):
        report = analyze(dag, (64,))
        assert [(each.name, each.reason) for each in report.skipped] == [
            ("a", "other vertices use its weights too"), ("c", "other vertices use its weights too"),
        ]  # fmt: skip


def test_stem_and_head_stay_on_demand(chain):
    dag = chain(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
    assert names(analyze(dag, (64,))) == ["a", "c", "e"]
    assert names(analyze(dag, (64,), prune_stem=False)) == ["c", "e"]
    assert names(analyze(dag, (64,), prune_head=False)) == ["a", "c"]
    report = analyze(dag, (64,), prune_stem=False, prune_head=False)
    assert [each.reason for each in report.skipped] == [
        "it is the stem, and prune_stem is off", "it is the head, and prune_head is off",
    ]  # fmt: skip


@pytest.mark.parametrize("multiple", [1, 8, 32, 1000])
def test_the_bound_is_every_layer_at_its_smallest_rank(chain, multiple):
    dag = chain(nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 48, 3, 2))
    report = analyze(dag, (3, 16, 16), rank_multiple=multiple)
    least = 0
    for candidate in report.candidates:
        costs = [table.flops(min(multiple, table.max_rank)) for table in candidate.tables]
        assert candidate.removable == candidate.flops - min(candidate.flops, *costs)
        least += candidate.removable
    assert report.reachable_flops == report.flops - least


def test_flops_at_ranks_are_those_of_the_factored_graph(chain, flops):
    dag = chain(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 32))
    report = analyze(dag, (64,))
    for first, second in itertools.product((8, 16, 24), (8, 16)):
        parts = [nn.Linear(64, first, bias=False), nn.Linear(first, 128), nn.ReLU()]
        parts += [nn.Linear(128, second, bias=False), nn.Linear(second, 32)]
        assert report.flops_at({"a": first, "c": second}) == flops(chain(*parts), (64,))
    assert report.flops_at({}) == report.flops
    with pytest.raises(SettingsError, match="there is no candidate 'zzz'"):
        report.flops_at({"zzz": 1})


def test_a_rank_that_does_not_pay_leaves_the_layer(chain):
    report = analyze(chain(nn.Linear(64, 64)), (64,))
    assert report.flops_at({"a": 64}) == report.flops


def test_siblings_share_their_first_factor(attention, flops):
    alone, shared = analyze(attention, (5, 64)), analyze(attention, (5, 64), share_siblings=True)
    assert names(alone) == ["q", "k", "v", "proj"]
    assert names(shared) == ["q + k + v", "proj"]
    assert shared.reachable_flops < alone.reachable_flops
    assert shared.flops == alone.flops
    candidate = shared.candidates[0]
    assert candidate.layers == ("q", "k", "v")
    assert candidate.flops == sum(each.flops for each in alone.candidates[:3])
    assert candidate.cost(8) == flops(factored(8), (5, 64)) - 5 * 128


def factored(k):
    """Return the graph of three linear layers through one waist, and the two sums that join them."""
    from torch_dag_core.ops.arithmetic import Add

    dag = DagModule()
    waist = dag.add_vertex("waist", nn.Linear(64, k, bias=False), [dag.add_input("x")])
    q, key, v = (
        dag.add_vertex(name, nn.Linear(k, 64, bias=bias), [waist])
        for name, bias in (("q", True), ("k", False), ("v", True))
    )
    dag.set_output(dag.add_vertex("sum", Add(), [dag.add_vertex("sum_qk", Add(), [q, key]), v]))
    return dag


def test_nested_graphs_are_looked_into(chain):
    report = analyze(chain(chain(nn.Linear(64, 64))), (64,))
    assert names(report) == ["a.a"]


def test_an_embedding_costs_nothing_and_is_not_mentioned():
    dag = DagModule()
    vertex = dag.add_vertex("embedding", nn.Embedding(100, 64), [dag.add_input("tokens")])
    dag.set_output(dag.add_vertex("head", nn.Linear(64, 64), [vertex]))
    report = analyze_integers(dag)
    assert names(report) == ["head"]
    assert report.skipped == ()


def analyze_integers(dag):
    from torch_dag_core.graph.inputs import Parameter, TensorSpec
    from torch_dag_core.graph.values import Slot

    dag.input_spec = InputSpec((Parameter("tokens", Slot(0)),), (TensorSpec(torch.int64, (None, 7)),))
    return analyze(dag, (7,))
