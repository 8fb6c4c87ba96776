"""What pictures show agrees with the graph."""

from __future__ import annotations

import torch
from torch import nn

import torch_dag_core as td
from torch_dag_show.scene import INPUT, LEARNED, OUTPUT, PLAIN, scene_of


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.up, self.down = nn.Linear(8, width), nn.Linear(width, 8)

    def forward(self, x):
        return x + self.down(self.up(x).relu())


def converted(*widths):
    return td.build_from_unstructured_module(nn.Sequential(*map(Residual, widths)), torch.randn(2, 8))


def test_vertices_edges_and_costs_are_those_of_the_graph():
    dag = converted(16, 4)
    scene = scene_of(dag)
    assert [node.name for node in scene.nodes] == [v.name for v in (*dag.vertices, *dag.output_vertices)]
    expected = {(p.name, v.name) for v in (*dag.inner_vertices, *dag.output_vertices) for p in v.predecessors}
    assert {(scene.nodes[a].name, scene.nodes[b].name) for a, b in scene.edges} == expected
    assert scene.flops == td.flops(dag).flops
    assert sum(node.parameters for node in scene.nodes) == sum(p.numel() for p in dag.parameters())


def test_kinds_and_shapes():
    nodes = {node.name: node for node in scene_of(converted(16)).nodes}
    assert {name: node.kind for name, node in nodes.items()} == {
        "input": INPUT, "0.up": LEARNED, "0.relu": PLAIN, "0.down": LEARNED, "0.add": PLAIN, "output": OUTPUT,
    }  # fmt: skip
    assert nodes["0.up"].shape == "1x16"
    assert nodes["0.up"].op == "Linear"


def test_a_shared_layer_counts_its_parameters_once():
    layer = nn.Linear(8, 8)
    scene = scene_of(td.build_from_unstructured_module(nn.Sequential(layer, nn.ReLU(), layer), torch.randn(2, 8)))
    assert sum(node.parameters for node in scene.nodes) == 72


def test_a_shared_activation_is_drawn_where_it_is_used():
    act = nn.ReLU()
    blocks = nn.Sequential(*[nn.Sequential(nn.Linear(8, 8), act, nn.Linear(8, 8), act) for _ in range(3)])
    nodes = scene_of(td.build_from_unstructured_module(blocks, torch.randn(2, 8))).nodes
    acts = [node for node in nodes if node.op == "ReLU"]
    assert {node.name.rpartition(".")[0] for node in acts} == {"0"}
    assert [node.path for node in acts] == [("0",), ("0",), ("1",), ("1",), ("2",), ("2",)]


def test_a_shared_layer_with_weights_stays_where_its_name_says():
    layer = nn.Linear(8, 8)
    model = nn.Sequential(nn.Sequential(layer, nn.ReLU()), nn.Sequential(nn.Tanh(), layer))
    nodes = scene_of(td.build_from_unstructured_module(model, torch.randn(2, 8))).nodes
    assert [node.path for node in nodes if node.op == "Linear"] == [("0",), ("0",)]


def test_a_graph_to_compare_with_gives_the_earlier_sizes():
    nodes = {node.name: node for node in scene_of(converted(4), converted(16)).nodes}
    assert (nodes["0.up"].shape, nodes["0.up"].shape_before) == ("1x4", "1x16")
    assert nodes["0.down"].shape_before == ""


def test_nested_graphs_are_opened():
    dag = td.build_from_unstructured_module(
        nn.Sequential(Residual(16), Residual(4)), torch.randn(2, 8), keep_hierarchy=True
    )
    assert "1.down" in [node.name for node in scene_of(dag).nodes]


def test_a_graph_built_by_hand_is_shown_without_sizes():
    dag = td.DagModule()
    dag.set_output(dag.add_vertex("act", nn.ReLU(), [dag.add_input("x")]))
    assert [node.shape for node in scene_of(dag).nodes] == ["", "", ""]


def test_orbits_of_channel_pruning_are_overlays():
    overlays = scene_of(converted(16)).overlays
    assert {(o.name, o.text) for o in overlays} == {("0.up.weight:0", "16 slots")}
    (places,) = (o.places for o in overlays)
    assert ("0.down", "0.down.weight:1") in places
