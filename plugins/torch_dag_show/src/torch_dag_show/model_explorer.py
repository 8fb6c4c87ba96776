"""A graph as a file of Google's Model Explorer, with one edge overlay for each orbit."""

from __future__ import annotations

import json
from itertools import pairwise

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.plugins.graph_formats import Overlay
from torch_dag_show.scene import Node, scene_of

_GRAPH = "graph"


def to_model_explorer(dag: DagModule, before: DagModule | None = None) -> str:
    """Return the graph as JSON that Model Explorer opens; dotted names become its layers.

    Args:
        dag: The graph.
        before: A graph to compare with; shapes that differ are shown with their earlier sizes.

    Raises:
        InputError: a graph does not run at the sizes that it remembers.
    """
    scene = scene_of(dag, before)
    sources: dict[int, list[int]] = {}
    for source, target in scene.edges:
        sources.setdefault(target, []).append(source)
    nodes = [_node(index, node, sources.get(index, [])) for index, node in enumerate(scene.nodes)]
    overlays = [_overlay(overlay, scene.position) for overlay in scene.overlays]
    graph = {
        "id": _GRAPH,
        "nodes": nodes,
        "tasksData": {
            "edgeOverlaysDataListLeftPane": [{"name": "orbits", "type": "edge_overlays", "overlays": overlays}]
        },
    }
    return json.dumps({"label": scene.title, "graphs": [graph]}, indent=1)


def _node(index: int, node: Node, sources: list[int]) -> dict[str, object]:
    facts = {
        "name": node.name,
        "constants": node.constants,
        "output": node.shape,
        "output before": node.shape_before,
        "FLOPs": f"{node.flops:,}",
        "parameters": f"{node.parameters:,}",
    }
    return {
        "id": str(index),
        "label": node.op or node.name,
        "namespace": "/".join(node.path),
        "attrs": [{"key": key, "value": value} for key, value in facts.items() if value],
        "incomingEdges": [
            {"sourceNodeId": str(source), "sourceNodeOutputId": "0", "targetNodeInputId": str(number)}
            for number, source in enumerate(sources)
        ],
    }


def _overlay(overlay: Overlay, position: dict[str, int]) -> dict[str, object]:
    vertices = dict.fromkeys(position[vertex] for vertex, _ in overlay.places)
    edges = [{"sourceNodeId": str(source), "targetNodeId": str(target)} for source, target in pairwise(vertices)]
    return {"name": f"{overlay.name} ({overlay.text})", "edgeColor": "#1662c4", "edges": edges}
