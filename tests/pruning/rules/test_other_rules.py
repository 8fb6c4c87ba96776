"""Attention, embeddings, sampling, constants, and ops that fail closed."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.graph.builtin_ops import FreeParameter
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.ops import arithmetic
from torch_dag_core.ops.attention import Attention
from torch_dag_core.ops.contraction import EmbeddingFunction
from torch_dag_core.ops.vocabulary import specs
from torch_dag_pruning import analyze
from torch_dag_pruning.axes.relation import rules_by_key
from torch_dag_pruning.rules import core_rules


def test_every_op_has_a_rule_or_an_expansion_and_every_rule_an_op():
    ruled = rules_by_key(core_rules()).keys()
    expanded = {spec.key for spec in specs() if spec.expand is not None}
    assert {spec.key for spec in specs()} - ruled == expanded
    assert ruled - {spec.key for spec in specs()} == set()


def heads(x, count):
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_fused_attention(check, fn, causal, masked):
    def forward(m, x):
        q, k, v = heads(m.q(x), 4), heads(m.k(x), 4), heads(m.v(x), 4)
        mask = m.mask if masked and not causal else None
        return m.o(F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal).transpose(1, 2).flatten(2))

    net = fn(
        forward, q=nn.Linear(5, 12), k=nn.Linear(5, 12), v=nn.Linear(5, 20), o=nn.Linear(20, 3),
        mask=nn.Parameter(torch.randn(4, 7, 7)),
    )  # fmt: skip
    check(net, torch.randn(2, 7, 5), ops=["scaled_dot_product_attention"], orbits=[4, 3, 5])


def test_grouped_queries(check, fn):
    def forward(m, x):
        q, k, v = heads(m.q(x), 6), heads(m.k(x), 2), heads(m.v(x), 2)
        return m.o(F.scaled_dot_product_attention(q, k, v, enable_gqa=True).transpose(1, 2).flatten(2))

    net = fn(forward, q=nn.Linear(5, 24), k=nn.Linear(5, 8), v=nn.Linear(5, 8), o=nn.Linear(24, 3))
    check(net, torch.randn(2, 7, 5), orbits=[2, 3, 4, 4])


def test_fused_attention_over_channels_freezes_the_keys(check, fn):
    def forward(m, x):
        q, k, v = (y.transpose(1, 2)[:, None] for y in (m.q(x), m.k(x), m.v(x)))
        return m.o(F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2))

    net = fn(forward, q=nn.Linear(5, 8), k=nn.Linear(5, 6), v=nn.Linear(5, 6), o=nn.Linear(8, 3))
    check(net, torch.randn(2, 7, 5), orbits=[8])


def test_torchs_own_attention(check, fn):
    net = fn(
        lambda m, x: m.b(m.attention(m.a(x), m.a(x), m.a(x), need_weights=False)[0]),
        a=nn.Linear(5, 8), attention=nn.MultiheadAttention(8, 4, batch_first=True), b=nn.Linear(8, 3),
    )  # fmt: skip
    check(net, torch.randn(2, 7, 5), orbits=[8, 8, 4, 2, 2])


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("norms", [{}, {"qk_norm": "layer_norm", "out_norm": "layer_norm"}, {"qk_norm": "rms_norm"}])
def test_the_composite_attention_is_taken_apart(check, fn, fused, norms):
    attention = Attention(8, 4, 3, 8, scale=0.5, fused=fused, **norms)
    net = fn(lambda m, x: m.b(m.attention(m.a(x))), a=nn.Linear(5, 8), attention=attention, b=nn.Linear(8, 3))
    check(net, torch.randn(2, 7, 5), orbits=[8, 4, 3, 8])


def test_two_of_them_keep_their_own_weights(check, fn):
    net = fn(
        lambda m, x: m.b(m.second(m.first(m.a(x)))), a=nn.Linear(5, 8), first=Attention(8, 4, 3, 8, scale=0.5),
        second=Attention(8, 4, 3, 8, scale=0.5), b=nn.Linear(8, 3),
    )  # fmt: skip
    check(net, torch.randn(2, 7, 5), orbits=[8, 4, 3, 8, 4, 3, 8])


def test_embedding(check, fn):
    net = fn(lambda m, i: m.b(F.relu(m.table(i) + m.positions)), table=nn.Embedding(11, 8), b=nn.Linear(8, 3),
             positions=nn.Parameter(torch.randn(7, 8)))  # fmt: skip
    check(net, torch.randint(0, 11, (2, 7)), ops=["embedding"], orbits=[8])


def test_tied_embedding(check, fn):
    net = fn(
        lambda m, i: F.linear(F.gelu(m.b(m.table(i))), m.table.weight), table=nn.Embedding(11, 8), b=nn.Linear(8, 8)
    )
    check(net, torch.randint(0, 11, (2, 7)), ops=["embedding"], orbits=[8])


def test_a_computed_table(check_dag):
    """Built by hand: index, table, a doubled table, its rows, a linear map."""
    dag = DagModule()
    index = dag.add_input("index")
    table = dag.add_vertex("table", FreeParameter((11, 8), torch.float32, value=torch.randn(11, 8)))
    doubled = dag.add_vertex("doubled", arithmetic.Mul(2.0), [table])
    rows = dag.add_vertex("rows", EmbeddingFunction(), [index, doubled])
    dag.set_output(dag.add_vertex("head", nn.Linear(8, 3), [rows]))
    check_dag(dag, torch.randint(0, 11, (2, 7)), orbits=[8])


def test_renormalised_embedding_freezes(check, fn):
    net = fn(lambda m, i: m.b(m.table(i)), table=nn.Embedding(11, 8, max_norm=1.0), b=nn.Linear(8, 3))
    check(net, torch.randint(0, 11, (2, 7)), orbits=[], seeds=[1])


def test_a_table_of_position_biases(check, fn):
    """Heads of the table are pruned with those of the projection."""

    def forward(m, x):
        q, k, v = m.qkv(x).reshape(len(x), 7, 3, 4, 3).permute(2, 0, 3, 1, 4).unbind(0)
        bias = m.table[m.index.view(-1)].view(7, 7, 4).permute(2, 0, 1)
        return m.o((torch.softmax(q @ k.transpose(-2, -1) + bias, -1) @ v).transpose(1, 2).reshape(len(x), 7, 12))

    net = fn(forward, qkv=nn.Linear(5, 36), table=nn.Parameter(torch.randn(13, 4)), o=nn.Linear(12, 3))
    place = torch.arange(7)
    net.register_buffer("index", place[:, None] - place[None] + 6)
    check(net, torch.randn(2, 7, 5), ops=["index", "constant"], orbits=[4, 3])


def test_a_constant_is_private_to_each_use(check, fn):
    """One rope table for two layers ties nothing between them."""

    def half(x):
        a, b = x.chunk(2, -1)
        return torch.cat([-b, a], -1)

    def forward(m, x):
        a = m.a(x)
        b = m.b(F.relu(a * m.table + half(a)))
        return m.c(b * m.table + half(b))

    net = fn(forward, a=nn.Linear(5, 8), b=nn.Linear(8, 8), c=nn.Linear(8, 3))
    net.register_buffer("table", torch.randn(7, 8))
    check(net, torch.randn(2, 7, 5), ops=["constant"], orbits=[4, 4])


_POOLS = [
    nn.MaxPool1d(2), nn.MaxPool2d(3, 2, 1), nn.MaxPool3d(2), nn.AvgPool1d(2), nn.AvgPool2d(3, 2, 1), nn.AvgPool3d(2),
    nn.LPPool1d(2, 2), nn.LPPool2d(2, 2), nn.AdaptiveAvgPool1d(2), nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool3d(2),
    nn.AdaptiveMaxPool1d(2), nn.AdaptiveMaxPool2d(1), nn.AdaptiveMaxPool3d(2), nn.Upsample(scale_factor=2),
    nn.UpsamplingNearest2d(scale_factor=2), nn.UpsamplingBilinear2d(scale_factor=2),
]  # fmt: skip


@pytest.mark.parametrize("pool", _POOLS, ids=lambda module: type(module).__name__)
def test_pooling(check, fn, pool):
    name = type(pool).__name__
    rank = int(name[-2]) if name.endswith("d") else 2
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
    net = fn(lambda m, x: m.b(m.pool(m.a(x))), a=conv(3, 8, 1), pool=pool, b=conv(8, 3, 1))
    check(net, torch.randn(2, 3, *[4] * rank), orbits=[8], seeds=[1])


def test_pooling_over_channels_freezes_them(check, fn):
    net = fn(lambda m, x: m.b(m.pool(m.a(x))), a=nn.Linear(5, 8), pool=nn.AvgPool1d(3, 1, 1), b=nn.Linear(8, 3))
    check(net, torch.randn(2, 7, 5), orbits=[], seeds=[1])


def test_sampling(check, fn):
    def forward(m, x):
        x = m.a(x)
        grid = torch.tanh(m.grid(x)).permute(0, 2, 3, 1)
        return m.b(F.interpolate(F.grid_sample(x, grid, align_corners=False), scale_factor=2))

    net = fn(forward, a=nn.Conv2d(3, 8, 1), grid=nn.Conv2d(8, 2, 1), b=nn.Conv2d(8, 3, 1))
    check(net, torch.randn(2, 3, 4, 4), ops=["grid_sample", "interpolate"], orbits=[8])


def test_functions_without_a_rule_fail_closed(check, fn):
    net = fn(lambda m, x: m.b(torch.kron(m.a(x), torch.ones(1, 1))), a=nn.Linear(5, 8), b=nn.Linear(8, 3))
    analysis = check(net, torch.randn(2, 5), ops=["torch_call"], orbits=[], seeds=[1])
    assert any(cause.op == "core.torch_call" for cause in analysis.locked)


def test_shared_layers_are_one(check, fn):
    net = fn(
        lambda m, x: m.b(F.relu(m.s(F.relu(m.s(m.a(x)))))), a=nn.Linear(5, 8), s=nn.Linear(8, 8), b=nn.Linear(8, 3)
    )
    check(net, torch.randn(2, 5), orbits=[8])


def test_an_output_may_be_freed(check, fn):
    net = fn(lambda m, x: m.b(torch.tanh(m.a(x))), a=nn.Linear(5, 8), b=nn.Linear(8, 6))
    assert len(check(net, torch.randn(2, 5), orbits=[8]).orbits) == 1
    check(net, torch.randn(2, 5), orbits=[8, 6], free_outputs=["b"])


def test_expansions_keep_what_no_text_shows(check, fn):
    """Two composite ops of equal sizes differ in their scales and in how they compute."""
    net = fn(
        lambda m, x: m.b(m.second(m.first(m.a(x)))), a=nn.Linear(5, 8), first=Attention(8, 4, 3, 8, scale=0.5),
        second=Attention(8, 4, 3, 8, scale=2.0, fused=False), b=nn.Linear(8, 3),
    )  # fmt: skip
    x = torch.randn(2, 7, 5)
    analysis = check(net, x, orbits=[8, 4, 3, 8, 4, 3, 8])
    torch.testing.assert_close(analysis.dag(x), net(x))


def test_expansions_share_tensors_and_no_modules(fn):
    net = fn(lambda m, x: m.a(x), a=Attention(8, 4, 2, 8, scale=0.5))
    dag = build_from_unstructured_module(net, torch.randn(2, 7, 8))
    first, second = analyze(dag).dag, analyze(dag).dag
    assert {id(p) for p in first.parameters()} == {id(p) for p in dag.parameters()} == {*map(id, second.parameters())}
    modules = [set(map(id, graph.modules())) for graph in (dag, first, second)]
    assert not modules[0] & modules[1] | modules[1] & modules[2]
    assert not any(p.is_meta for p in first.parameters())
