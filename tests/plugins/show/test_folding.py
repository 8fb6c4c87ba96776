"""Modules drawn as one box stand for exactly the vertices in them."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import torch_dag_core as td
from torch_dag_show.folding import folded
from torch_dag_show.scene import LEARNED, Node, Scene, scene_of


def named(picture, name):
    (box,) = (box for box in picture.boxes if box.name == name)
    return box


def test_nothing_is_folded_without_a_depth(staged):
    scene = scene_of(staged)
    picture = folded(scene)
    assert [box.nodes for box in picture.boxes] == [(node,) for node in scene.nodes]
    assert picture.edges == scene.edges


def test_the_depth_says_which_modules_are_folded(staged):
    names = {depth: [box.name for box in folded(scene_of(staged), depth).boxes] for depth in (1, 2, 3)}
    assert names[1] == ["x", "stages", "head.0", "output"]
    assert names[2] == ["x", "stages.0", "stages.1", "head.0", "output"]
    assert names[3][:4] == ["x", "stages.0.blocks", "stages.0.norm", "stages.1.blocks"]


def test_a_folded_module_counts_what_is_in_it(staged):
    stage = named(folded(scene_of(staged), 2), "stages.1")
    inside = [v for v in staged.inner_vertices if v.name.startswith("stages.1.")]
    assert len(stage.nodes) == len(inside) == 9
    assert stage.parameters == sum(p.numel() for v in inside for p in v.module.parameters())
    assert stage.flops == sum(flops for name, flops in vertex_flops(staged).items() if name.startswith("stages.1."))
    assert (stage.label, stage.path, stage.kind, stage.shape) == ("1", ("stages",), LEARNED, "1x8")


def vertex_flops(dag):
    return {node.name: node.flops for node in scene_of(dag).nodes}


def test_a_shared_activation_is_folded_where_it_is_used():
    act = nn.ReLU()
    blocks = nn.Sequential(*[nn.Sequential(nn.Linear(8, 8), act) for _ in range(3)])
    scene = scene_of(td.build_from_unstructured_module(blocks, torch.randn(2, 8)))
    assert [(box.name, len(box.nodes)) for box in folded(scene, 1).boxes][1:4] == [("0", 2), ("1", 2), ("2", 2)]
    assert [box.label for box in folded(scene).boxes if box.nodes[0].op == "ReLU"] == ["1", "1_1", "1_2"]


def test_a_folded_module_that_returns_several_sizes_shows_none():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(8, 16), nn.Linear(8, 4)

        def forward(self, x):
            return self.up(x), self.down(x)

    class Around(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Two()

        def forward(self, x):
            first, second = self.inner(x)
            return first.relu(), second.relu()

    dag = td.build_from_unstructured_module(Around(), torch.randn(2, 8))
    assert named(folded(scene_of(dag), 1), "inner").shape == ""


def test_a_folded_module_is_changed_if_a_size_in_it_is():
    def build(width):
        block = nn.Sequential(nn.Linear(8, width), nn.Linear(width, 8))
        return td.build_from_unstructured_module(nn.Sequential(block, nn.Linear(8, 8)), torch.randn(2, 8))

    picture = folded(scene_of(build(4), build(16)), 1)
    assert [box.name for box in picture.boxes if box.changed] == ["0"]
    assert named(picture, "0").shape_before == ""


@pytest.mark.parametrize("depth", [0, -1, True, 1.0, "1"])
def test_other_depths_are_refused(staged, depth):
    with pytest.raises(td.InputError, match="depth must be None or an int of at least 1, not"):
        folded(scene_of(staged), depth)


NAMES = st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map(".".join), unique=True, max_size=20)


@given(names=NAMES, data=st.data(), depth=st.none() | st.integers(1, 5))
def test_every_vertex_and_every_edge_is_in_the_picture_once(names, data, depth):
    pairs = [(a, b) for b in range(len(names)) for a in range(b)]
    edges = data.draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    nodes = tuple(Node(name, "ReLU", LEARNED, parameters=1, flops=2) for name in names)
    picture = folded(Scene("graph", nodes, tuple(edges), (), {}), depth)
    assert Counter(node for box in picture.boxes for node in box.nodes) == Counter(nodes)
    holder = {node.name: place for place, box in enumerate(picture.boxes) for node in box.nodes}
    expected = {(holder[names[a]], holder[names[b]]) for a, b in edges}
    assert sorted(picture.edges) == sorted(pair for pair in expected if pair[0] != pair[1])
    for box in picture.boxes:
        prefix = ".".join(box.path)
        assert all(node.name.startswith(prefix) for node in box.nodes)
        assert ".".join([*box.path, box.label]) == box.name
        assert depth is None or len(box.path) < depth
