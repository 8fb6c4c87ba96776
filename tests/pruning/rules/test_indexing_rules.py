"""Reading and writing by index."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.cut import remove_channels
from torch_dag_pruning.plan.plan import Plan

INDEXED = {
    "slice": (lambda x: x[..., 2:6], 4, [2, 4, 2]),
    "negative slice": (lambda x: x[..., -5:-1], 4, [3, 4]),
    "open slice": (lambda x: x[..., 3:], 5, [3, 5]),
    "stride": (lambda x: x[..., ::2], 4, [4]),
    "odd stride": (lambda x: x[..., 1::2], 4, [4]),
    "uneven stride": (lambda x: x[..., ::3], 3, []),
    "new axis": (lambda x: x[:, None][:, 0], 8, [8]),
    "token": (lambda x: x[:, 0], 8, [8]),
    "last token": (lambda x: x[:, -1], 8, [8]),
    "channel": (lambda x: x[..., 3:5].sum(-1, keepdim=True).expand(-1, -1, 4), 4, [3, 2, 3]),
    "positions": (lambda x: x[:, torch.tensor([0, 2, 2])], 8, [8]),
    "apart": (lambda x: x[:, torch.tensor([0, 2]), :, None][:, :, :, 0], 8, [8]),
    "channels by position": (lambda x: x[..., torch.tensor([1, 3, 5])], 3, []),
    "index_select": (lambda x: x.index_select(1, torch.tensor([1, 1, 0])), 8, [8]),
    "gather": (lambda x: x.gather(1, (x[:, :3] > 0).long()), 8, [8]),
}


@pytest.mark.parametrize("name", INDEXED)
def test_indexing(check, fn, name):
    pick, width, orbits = INDEXED[name]
    net = fn(lambda m, x: m.b(F.relu(pick(m.a(x)))), a=nn.Linear(5, 8), b=nn.Linear(width, 3))
    check(net, torch.randn(2, 7, 5), orbits=orbits)


AROUND = {
    "before the last": lambda x: (x[..., :-4], x[..., -4:]),
    "after the first": lambda x: (x[..., 3:], x[..., :3]),
    "between": lambda x: (x[..., 2:-6], x[..., -6:-1]),
    "all but one": lambda x: (x[..., :-1], x[..., -1:]),
    "more than there is": lambda x: (x[..., -99:-5], x[..., -5:99]),
}


@pytest.mark.parametrize("learned_first", [False, True])
@pytest.mark.parametrize("name", AROUND)
def test_slices_count_from_where_the_model_counts(check, fn, name, learned_first):
    def forward(m, x):
        joined = torch.cat([m.a(x), x] if learned_first else [x, m.a(x)], -1)
        return sum(head(piece) for head, piece in zip(m.heads, AROUND[name](joined), strict=True))

    widths = [piece.shape[-1] for piece in AROUND[name](torch.empty(11))]
    net = fn(forward, a=nn.Linear(7, 4), heads=nn.ModuleList(nn.Linear(width, 3) for width in widths))
    assert check(net, torch.randn(2, 7)).orbits


def test_a_slice_before_slots_of_which_nothing_is_left_is_open(fn):
    net = fn(
        lambda m, x: m.c(torch.cat([x, m.a(x)], -1)[..., :-8]) + m.b(m.a(x)),
        a=nn.Linear(5, 8), b=nn.Linear(8, 3), c=nn.Linear(5, 3),
    )  # fmt: skip
    x = torch.randn(2, 7, 5)
    dag = build_from_unstructured_module(net, x)
    analysis = analyze(dag, x)
    smaller = remove_channels(dag, Plan.keeping(analysis, {orbit.key: [] for orbit in analysis.orbits}))
    expected = net.c(x) + net.b.bias
    torch.testing.assert_close(smaller(x), expected)


def test_writing_into_a_copy(check, fn):
    def forward(m, x):
        x = m.a(x).clone()
        x[:, 1:3] = m.b(x[:, 0:1])
        x[:, 4] = 0.5
        return m.c(x)

    net = fn(forward, a=nn.Linear(5, 8), b=nn.Linear(8, 8), c=nn.Linear(8, 3))
    check(net, torch.randn(2, 7, 5), ops=["set_index"], orbits=[8])


def test_writing_channels(check, fn):
    def forward(m, x):
        y = m.a(x).clone()
        y[..., 2:6] = m.b(x)
        return m.c(y)

    net = fn(forward, a=nn.Linear(5, 8), b=nn.Linear(5, 4), c=nn.Linear(8, 3))
    check(net, torch.randn(2, 7, 5), ops=["set_index"])
