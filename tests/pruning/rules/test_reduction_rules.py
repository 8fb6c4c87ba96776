"""Reductions and softmax over prunable axes, and ops that only know positions."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

REDUCED = {
    "sum": lambda x: x.sum(-1),
    "mean": lambda x: x.mean(-1),
    "amax": lambda x: x.amax(-1),
    "amin": lambda x: x.amin(-1),
    "max_along": lambda x: x.max(-1).values,
    "min_along": lambda x: x.min(-1)[0],
    "var": lambda x: x.var(-1),
    "std": lambda x: x.std(-1),
    "var_mean": lambda x: sum(torch.var_mean(x, -1)),
    "std_mean": lambda x: sum(torch.std_mean(x, -1)),
    "norm": lambda x: x.norm(dim=-1),
    "logsumexp": lambda x: x.logsumexp(-1),
}


@pytest.mark.parametrize("name", REDUCED)
def test_reduction_over_channels(check, fn, name):
    net = fn(
        lambda m, x: m.b(REDUCED[name](m.a(x))) + m.c(m.a(x)).mean(1),
        a=nn.Linear(5, 8),
        b=nn.Linear(7, 3),
        c=nn.Linear(8, 3),
    )
    analysis = check(net, torch.randn(2, 7, 5), ops=[name], orbits=[8])
    least = {"var": 2, "std": 2, "var_mean": 2, "std_mean": 2, "amax": 1, "amin": 1, "max_along": 1, "min_along": 1}
    assert analysis.orbits[0].minimum == least.get(name, 0)


@pytest.mark.parametrize("name", REDUCED)
def test_reduction_over_channels_and_space(check, fn, name):
    def forward(m, x):
        x = m.a(x)
        fixed = x + torch.zeros(7)  # a length that is free could not be told from the channels once both are flattened
        reduced = {
            "max_along": lambda x: x.max(2).values.max(1).values,
            "min_along": lambda _: fixed.flatten(1).min(1)[0],
        }
        over = reduced.get(name) or {
            "sum": lambda x: x.sum((1, 2)), "mean": lambda x: x.mean((1, 2)), "amax": lambda x: x.amax((1, 2)),
            "amin": lambda x: x.amin((1, 2)), "var": lambda x: x.var((1, 2)), "std": lambda x: x.std((1, 2)),
            "var_mean": lambda x: sum(torch.var_mean(x, (1, 2))),
            "std_mean": lambda x: sum(torch.std_mean(x, (1, 2))), "norm": lambda x: x.norm(dim=(1, 2)),
            "logsumexp": lambda x: x.logsumexp((1, 2)),
        }[name]  # fmt: skip
        return m.b(x) * over(x)[:, None, None]

    net = fn(forward, a=nn.Conv1d(3, 8, 1), b=nn.Conv1d(8, 3, 1))
    check(net, torch.randn(2, 3, 7), orbits=[8])


def test_reduction_over_everything(check, fn):
    net = fn(
        lambda m, x: m.b(m.a(x)) * m.a(x).mean() + m.a(x).sum() + m.a(x).amax(), a=nn.Linear(5, 8), b=nn.Linear(8, 3)
    )
    check(net, torch.randn(2, 5), orbits=[8])


def test_reduction_over_heads(check, fn):
    """The mean over a product of two orbits."""

    def forward(m, x):
        y = m.a(x)
        mean = y.reshape(len(x), 7, 4, 3).mean((2, 3), keepdim=True)
        return m.b(F.relu(y)) * mean.flatten(2) * y.var(-1, keepdim=True)

    net = fn(forward, a=nn.Linear(5, 12), b=nn.Linear(12, 3))
    check(net, torch.randn(2, 7, 5), orbits=[4, 3])


@pytest.mark.parametrize(
    "pick", [lambda x: x.argmax(-1), lambda x: x.argmin(-1), lambda x: x.max(-1)[1], lambda x: x.min(-1)[1]]
)
def test_positions_freeze(check, fn, pick):
    net = fn(lambda m, x: m.b(m.a(x)) + pick(m.a(x))[:, None].to(x.dtype), a=nn.Linear(5, 8), b=nn.Linear(8, 3))
    analysis = check(net, torch.randn(2, 5), orbits=[], seeds=[1])
    assert any("position" in cause.reason for cause in analysis.locked)


@pytest.mark.parametrize("softmax", [nn.Softmax(-1), nn.LogSoftmax(-1), nn.Softmin(-1), nn.Softmax(1)])
def test_softmax_over_channels(check, fn, softmax):
    net = fn(lambda m, x: m.b(m.f(m.a(x))), a=nn.Linear(5, 8), f=softmax, b=nn.Linear(8, 3))
    check(net, torch.randn(2, 7, 5), orbits=[8])


def test_softmax_of_channels_in_space(check, fn):
    net = fn(lambda m, x: m.b(m.f(m.a(x))), a=nn.Conv2d(3, 8, 1), f=nn.Softmax2d(), b=nn.Conv2d(8, 3, 1))
    check(net, torch.randn(2, 3, 4, 4), ops=["softmax2d"], orbits=[8])


def test_attention_over_channels(check, fn):
    """Cross-covariance: the softmax runs over the channels of keys, which values share."""

    def forward(m, x):
        q, k, v = m.q(x), m.k(x), m.v(x)
        weights = torch.softmax(F.normalize(q, dim=1).transpose(1, 2) @ F.normalize(k, dim=1) * m.scale, -1)
        return m.o((weights @ v.transpose(1, 2)).transpose(1, 2))

    net = fn(
        forward, q=nn.Linear(5, 8), k=nn.Linear(5, 6), v=nn.Linear(5, 6), o=nn.Linear(8, 3),
        scale=nn.Parameter(torch.tensor(2.0)),
    )  # fmt: skip
    relations = check(net, torch.randn(2, 7, 5), orbits=[8, 6]).relations
    # Tokens are contracted first, so nothing is masked there; the masked softmax has cleared dead values already.
    assert [sink for name in ("matmul", "matmul_1") for sink in relations[name].sinks] == []


def test_cosine_similarity(check, fn):
    net = fn(
        lambda m, x: m.c(m.a(x)) * m.f(m.a(x), m.b(x))[:, None],
        a=nn.Linear(5, 8), b=nn.Linear(5, 8), f=nn.CosineSimilarity(), c=nn.Linear(8, 3),
    )  # fmt: skip
    check(net, torch.randn(2, 5), ops=["cosine_similarity"], orbits=[8])


def test_pairwise_distance_freezes(check, fn):
    net = fn(
        lambda m, x: m.c(m.a(x)) * m.f(m.a(x), m.b(x))[:, None],
        a=nn.Linear(5, 8), b=nn.Linear(5, 8), f=nn.PairwiseDistance(), c=nn.Linear(8, 3),
    )  # fmt: skip
    check(net, torch.randn(2, 5), ops=["pairwise_distance"], orbits=[], seeds=[1])
