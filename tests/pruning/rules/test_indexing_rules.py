"""Reading and writing by index."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

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
