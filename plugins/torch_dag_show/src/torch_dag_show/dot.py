"""A graph as a Graphviz file, with one cluster for each module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch_dag_core.graph.dag import DagModule
from torch_dag_show.folding import Box, folded
from torch_dag_show.plain_text import plain
from torch_dag_show.scene import LEARNED, PLAIN, scene_of

_SHAPES = {PLAIN: "box", LEARNED: "box, penwidth=2"}
_ENDS = "ellipse"


def to_dot(dag: DagModule, before: DagModule | None = None, *, depth: int | None = None) -> str:
    """Return the graph in Graphviz's language; ``dot -Tsvg`` draws it. Equal graphs give equal texts.

    Args:
        dag: The graph.
        before: A graph to compare with; shapes that differ are shown with their earlier sizes.
        depth: Draw those modules as one box each whose names have this many parts: 1 folds ``layer1``, 2 ``layer1.0``.
            None draws every vertex.

    Raises:
        InputError: a graph does not run at the sizes that it remembers, or the depth is less than 1.
    """
    picture = folded(scene_of(dag, before, overlays=False), depth)
    lines = ["digraph {", '  node [fontname="Helvetica", fontsize=10]', '  graph [fontname="Helvetica", fontsize=10]']
    lines += _clusters(picture.boxes)
    lines += [f"  v{source} -> v{target}" for source, target in picture.edges]
    return "\n".join([*lines, "}", ""])


def _clusters(boxes: Sequence[Box]) -> Iterator[str]:
    """Yield the boxes in the order of their modules, each of which is opened and closed once."""
    opened: list[str] = []
    members: dict[tuple[str, ...], list[int]] = {}
    for index, box in enumerate(boxes):
        members.setdefault(box.path, []).append(index)
    for number, path in enumerate(sorted(members)):
        while opened != list(path[: len(opened)]):
            opened.pop()
            yield "  }"
        for part in path[len(opened) :]:
            opened.append(part)
            yield f"  subgraph cluster_{number}_{len(opened)} {{ label={_quoted('.'.join(opened))}"
        yield from (f"  v{index} [{_attributes(boxes[index])}]" for index in members[path])
    yield from ("  }" for _ in opened)


def _attributes(box: Box) -> str:
    was = f" (was {box.shape_before})" if box.shape_before else ""
    middle = f"{len(box.nodes)} vertices" if box.folded else box.nodes[0].op
    label = "\n".join(line for line in (box.label, middle, f"{box.shape}{was}") if line)
    style = ", style=dashed" if box.folded else ""
    return f"label={_quoted(label)}, tooltip={_quoted(box.name)}, shape={_SHAPES.get(box.kind, _ENDS)}{style}"


def _quoted(text: str) -> str:
    """Return a string of Graphviz's language, which reads escapes and the entities of HTML in it."""
    escapes: dict[str, str | int | None] = {"\\": "\\\\", '"': '\\"', "&": "&amp;", "\n": "\\n"}
    return '"' + plain(text).translate(str.maketrans(escapes)) + '"'
