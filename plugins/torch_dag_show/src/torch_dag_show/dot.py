"""A graph as a Graphviz file, with one cluster for each group."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from torch_dag_core.graph.dag import DagModule
from torch_dag_show.scene import LEARNED, PLAIN, Node, scene_of

_SHAPES = {PLAIN: "box", LEARNED: "box, penwidth=2"}
_ENDS = "ellipse"


def to_dot(dag: DagModule, before: DagModule | None = None) -> str:
    """Return the graph in Graphviz's language; ``dot -Tsvg`` draws it.

    Args:
        dag: The graph.
        before: A graph to compare with; shapes that differ are shown with their earlier sizes.

    Raises:
        InputError: a graph does not run at the sizes that it remembers.
    """
    scene = scene_of(dag, before)
    lines = ["digraph {", '  node [fontname="Helvetica", fontsize=10]', '  graph [fontname="Helvetica", fontsize=10]']
    lines += _clusters(list(enumerate(scene.nodes)))
    lines += [f"  v{source} -> v{target}" for source, target in scene.edges]
    return "\n".join([*lines, "}", ""])


def _clusters(nodes: Iterable[tuple[int, Node]]) -> Iterator[str]:
    """Yield the vertices in the order of their names' groups, each group opened and closed once."""
    opened: list[str] = []
    members: dict[tuple[str, ...], list[tuple[int, Node]]] = {}
    for index, node in nodes:
        members.setdefault(tuple(node.name.split(".")[:-1]), []).append((index, node))
    for number, group in enumerate(sorted(members)):
        while opened != list(group[: len(opened)]):
            opened.pop()
            yield "  }"
        for part in group[len(opened) :]:
            opened.append(part)
            yield f"  subgraph cluster_{number}_{len(opened)} {{ label={json.dumps('.'.join(opened))}"
        yield from (f"  v{index} [label={_label(node)}, shape={_shape(node)}]" for index, node in members[group])
    yield from ("  }" for _ in opened)


def _label(node: Node) -> str:
    was = f" (was {node.shape_before})" if node.shape_before else ""
    lines = [node.name.rpartition(".")[-1], node.op, f"{node.shape}{was}"]
    return json.dumps("\n".join(line for line in lines if line), ensure_ascii=False)


def _shape(node: Node) -> str:
    return _SHAPES.get(node.kind, _ENDS)
