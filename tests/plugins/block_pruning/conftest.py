"""Small nets with at most eight legal cuts each, and real cuts made by graph surgery."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from torch_dag_core.analysis.cost_table import flops as count_flops
from torch_dag_core.conversion.convert import build_from_unstructured_module


class Branch(nn.Sequential):
    def __init__(self, n, out=None, stride=1):
        out = out or n
        super().__init__(nn.Conv2d(n, 6, 3, stride, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, out, 1))


class Identity(nn.Module):
    """Two blocks whose shortcut is their input."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), Branch(4), Branch(4)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(x + self.a(x))
        return torch.relu(self.b(x) + x)


class Projection(nn.Module):
    """A block of which either side may go."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), Branch(4, 8, 2), Branch(8)
        self.shortcut = nn.Conv2d(4, 8, 1, 2)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        x = self.a(x) + self.shortcut(x)
        x = x + self.b(x)
        return self.head(x.mean((2, 3)))


class Nested(nn.Module):
    """A residual branch that holds two others, and parallel branches of one sum of three."""

    def __init__(self):
        super().__init__()
        self.first, self.outer, self.inner, self.left, self.right = (Branch(4) for _ in range(5))
        self.stem = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        x = self.stem(x)
        y = self.first(x)
        y = y + self.inner(y)
        x = x + self.outer(y)
        return x + self.left(x) + self.right(x)


class SharedParts(nn.Module):
    """Two branches that both need one value, which dies only with the second of them."""

    def __init__(self):
        super().__init__()
        self.stem, self.common, self.a, self.b = nn.Conv2d(3, 4, 1), Branch(4), Branch(4), Branch(4)

    def forward(self, x):
        x = self.stem(x)
        common = self.common(x)
        y = x + self.a(common)
        return y + self.b(common) * torch.sigmoid(y)


class Gated(nn.Module):
    """Squeeze and excitation on a residual branch, and a scale that is no gate worth cutting."""

    def __init__(self):
        super().__init__()
        self.stem, self.a = nn.Conv2d(3, 4, 1), Branch(4)
        self.squeeze, self.excite = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)
        self.scale = nn.Parameter(torch.full((4, 1, 1), 0.5))

    def forward(self, x):
        x = self.stem(x)
        y = self.a(x)
        y = y * torch.sigmoid(self.excite(torch.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        return x + y * self.scale


class Tokens(nn.Module):
    """Attention and a perceptron on tokens with a position embedding, as in a transformer."""

    def __init__(self):
        super().__init__()
        self.embed, self.position = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(1, 4, 8))
        self.norm, self.qkv, self.proj = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.mlp = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2) + self.position
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + self.proj((q @ k.transpose(1, 2)).softmax(-1) @ v)
        return x + self.mlp(x)


NETS = {cls.__name__: cls for cls in (Identity, Projection, Nested, SharedParts, Gated, Tokens)}
SHAPE = (3, 8, 8)


@pytest.fixture(params=NETS)
def net(request):
    """Convert one of the nets."""
    return build(NETS[request.param])


def build(cls):
    return converted(cls).clone()


@functools.cache
def converted(cls):
    torch.manual_seed(0)
    return build_from_unstructured_module(cls().eval(), torch.randn(2, *SHAPE))


@pytest.fixture
def convert():
    """Convert a net by its name."""
    return lambda name: build(NETS[name])


@pytest.fixture
def cut():
    """Cut operands off for real and remove what is dead, on a clone."""

    def apply(dag, candidates):
        clone = dag.clone()
        for candidate in candidates:
            join = clone.get_vertex_by_name(candidate.join)
            clone.replace_uses(join, join.predecessors[1 - candidate.operand])
        clone.remove_dead_vertices()
        clone.verify()
        return clone

    return apply


@pytest.fixture
def flops():
    """Count the FLOPs of one sample of a graph."""
    return lambda dag, shape: count_flops(dag, torch.empty(1, *shape, device="meta")).flops
