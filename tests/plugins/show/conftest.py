"""Graphs that pictures are drawn of."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import torch_dag_core as td

HOSTILE = (
    "</title><script>alert(1)</script>",
    '"];v0->v1;"',
    "a\\N\\",
    "&lt;b&gt;&amp;",
    "bell\x07null\x00\ud800\uffff",
    "{|}[]<>",
    "\u5c64" * 60,
    "]]>--><!--",
    "$title${graph}",
)
"""Names that mean something to HTML, XML or Graphviz, or that XML cannot hold."""


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.act, self.down = nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)

    def forward(self, x):
        return x + self.down(self.act(self.up(x)))


class Stage(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks, self.norm = nn.Sequential(Residual(), Residual()), nn.LayerNorm(8)

    def forward(self, x):
        return self.norm(self.blocks(x))


class Staged(nn.Module):
    """A network of two stages of two blocks, with a module that holds one vertex alone."""

    def __init__(self):
        super().__init__()
        self.stages, self.head = nn.Sequential(Stage(), Stage()), nn.Sequential(nn.Linear(8, 4))

    def forward(self, x):
        return self.head(self.stages(x))


@pytest.fixture
def staged():
    return td.build_from_unstructured_module(Staged(), torch.randn(2, 8))


@pytest.fixture
def hostile():
    """A chain of vertices with hostile names, each alone in a module with such a name."""
    dag = td.DagModule()
    value = dag.add_input("x")
    for index, name in enumerate(HOSTILE):
        value = dag.add_vertex(f"{name}{index}.{name}", nn.ReLU(), [value])
    dag.set_output(value)
    return dag


@pytest.fixture
def long_graph():
    return blocks_and_tail


def blocks_and_tail(length):
    """A graph of stages of 50 blocks of 4 vertices, each with a skip, one edge over all of it, and a flat tail."""
    graph = td.DagModule()
    value = start = graph.add_input("x")
    for index in range(length // 5):
        path = f"stage{index // 50}.block{index}"
        first = graph.add_vertex(f"{path}.act", nn.ReLU(), [value])
        second = graph.add_vertex(f"{path}.norm", nn.Identity(), [first])
        third = graph.add_vertex(f"{path}.gate", nn.Sigmoid(), [second])
        value = graph.add_vertex(f"{path}.out", nn.Bilinear(1, 1, 1), [value, third])
    for index in range(length - len(graph.inner_vertices) - 1):
        value = graph.add_vertex(f"tail{index}", nn.Bilinear(1, 1, 1), [value, start])
    graph.set_output(graph.add_vertex("last", nn.Bilinear(1, 1, 1), [value, start]))
    return graph
