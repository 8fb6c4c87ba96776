"""A graph as one self-contained page that needs no network."""

from __future__ import annotations

import html
import json
import string
from dataclasses import asdict
from importlib import resources

from torch_dag_core.graph.dag import DagModule
from torch_dag_show.folding import checked_depth
from torch_dag_show.scene import Node, Scene, scene_of

OVERLAY_TITLE = "orbits"


def to_html(dag: DagModule, before: DagModule | None = None, *, depth: int | None = None) -> str:
    """Return a page with the graph as a picture whose groups open and close.

    The page names the vertices, their constants, shapes and costs, and no weights.

    Args:
        dag: The graph.
        before: A graph to compare with; shapes that differ are shown with their earlier sizes.
        depth: Begin with the modules closed whose names have this many parts: 1 closes ``layer1``, 2 ``layer1.0``. None
            opens modules as long as the picture stays small.

    Raises:
        InputError: a graph does not run at the sizes that it remembers, or the depth is less than 1.
    """
    checked_depth(depth)
    scene = scene_of(dag, before)
    parts = {
        "title": html.escape(scene.title.rpartition(".")[-1]),
        "overlay_title": OVERLAY_TITLE,
        "style": _asset("page.css"),
        "graph": _embedded(scene, depth),
        "script": _asset("layout.js") + _asset("view.js"),
    }
    return string.Template(_asset("page.html")).substitute(parts)


def _asset(name: str) -> str:
    return (resources.files("torch_dag_show") / "page" / name).read_text(encoding="utf-8")


def _embedded(scene: Scene, depth: int | None) -> str:
    """Return the scene as JSON that cannot end the script element which holds it, whatever the names contain."""
    content = {
        "title": scene.title,
        "overlay_title": OVERLAY_TITLE,
        "facts": list(scene.facts.items()),
        "flops": scene.flops,
        "depth": depth,
        "nodes": [_node(node) for node in scene.nodes],
        "edges": scene.edges,
        "overlays": [
            {
                "name": overlay.name,
                "text": overlay.text,
                "places": [(scene.position[vertex], text) for vertex, text in overlay.places],
            }
            for overlay in scene.overlays
        ],
    }
    return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")


def _node(node: Node) -> dict[str, object]:
    row = asdict(node)
    return {"was": row.pop("shape_before"), "args": row.pop("constants"), **row, "home": ".".join(node.path)}
