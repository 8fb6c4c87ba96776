"""A graph as a vector graphic that needs no other program: boxes in layers from top to bottom, grouped by module."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise

from torch_dag_core.graph.dag import DagModule
from torch_dag_show.arrangement import Area, Arrangement, Path, Point, arrange
from torch_dag_show.folding import Box, Folded, folded
from torch_dag_show.plain_text import columns, one_line, plain
from torch_dag_show.scene import INPUT, scene_of

_LETTER, _LINE, _PADDING = 5.9, 12.5, 7.0
_STRAIGHT = 0.05
"""Pixels; what bends less is drawn as a straight line."""
_STYLE = """
text { font: 10px Helvetica, Arial, sans-serif; fill: #1d2125; }
.box text { text-anchor: middle; }
.name { font-weight: bold; } .fact, .title { fill: #5c646c; }
.paper { fill: #ffffff; }
.box rect { fill: #ffffff; stroke: #9aa4ae; } .learned rect { stroke: #1662c4; stroke-width: 1.4; }
.input rect, .output rect { stroke: #2f9a60; stroke-width: 1.4; }
.folded rect { stroke-dasharray: 4 2; } .changed rect { fill: #fff3d6; }
.module rect { stroke: #d3d9df; } .odd rect { fill: #f3f5f8; } .even rect { fill: #e9edf2; }
.edge { fill: none; stroke: #6b737c; } marker path { fill: #6b737c; }
"""
_TIP = (
    '<defs><marker id="tip" viewBox="0 0 6 6" refX="6" refY="3" markerWidth="6" markerHeight="6" orient="auto">'
    '<path d="M0 0 L6 3 L0 6 z"/></marker></defs>'
)

Line = tuple[str, str]
"""The class of a line of text, and its text."""


def to_svg(dag: DagModule, before: DagModule | None = None, *, depth: int | None = None) -> str:
    """Return the graph as SVG, for papers and slides. Equal graphs give equal texts.

    Each vertex is an element with the attribute ``data-vertex``, each folded module one with ``data-module``, and each
    edge one with ``data-from`` and ``data-to``.

    Args:
        dag: The graph.
        before: A graph to compare with; shapes that differ are shown with their earlier sizes, in another colour.
        depth: Draw those modules as one box each whose names have this many parts: 1 folds ``layer1``, 2 ``layer1.0``.
            None draws every vertex.

    Raises:
        InputError: a graph does not run at the sizes that it remembers, or the depth is less than 1.
    """
    scene = scene_of(dag, before, overlays=False)
    return drawn(scene.title, folded(scene, depth))


def drawn(title: str, picture: Folded) -> str:
    """Return a picture as SVG."""
    boxes = picture.boxes
    texts = [_lines(box) for box in boxes]
    inputs = [index for index, box in enumerate(boxes) if box.kind == INPUT]
    layout = arrange([_size(lines) for lines in texts], [box.path for box in boxes], picture.edges, inputs, _LETTER)
    width, height = f"{layout.width:.0f}", f"{layout.height:.0f}"
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<title>{_escaped(title)}</title><style>{_STYLE}</style>",
        f'{_TIP}<rect class="paper" width="{width}" height="{height}"/>',
        *(_module(path, area) for path, area in layout.modules.items()),
        *_edges(boxes, picture.edges, layout),
        *(_title(path, area) for path, area in layout.modules.items()),
        *(_box(box, area, lines) for box, area, lines in zip(boxes, layout.boxes, texts, strict=True)),
        "</svg>",
        "",
    ])  # fmt: skip


def _lines(box: Box) -> list[Line]:
    """Return the lines of a box, each with its class."""
    if box.folded:
        lines = [("name", box.label), ("text", f"{len(box.nodes)} vertices")]
    else:
        op = box.nodes[0].op
        lines = [("name", op), ("text", box.label)] if op else [("name", box.label)]
    was = f" (was {box.shape_before})" if box.shape_before else ""
    return [(name, one_line(text)) for name, text in [*lines, ("fact", f"{box.shape}{was}")] if text]


def _size(lines: Sequence[Line]) -> tuple[float, float]:
    return max(columns(text) for _, text in lines) * _LETTER + 2 * _PADDING, len(lines) * _LINE + _PADDING


def _rectangle(area: Area, radius: int) -> str:
    size = f'width="{area.width:.1f}" height="{area.height:.1f}" rx="{radius}"'
    return f'<rect x="{area.left:.1f}" y="{area.top:.1f}" {size}/>'


def _module(path: Path, area: Area) -> str:
    return f'<g class="module {_ground(path)}">{_rectangle(area, 6)}</g>'


def _ground(path: Path) -> str:
    return "odd" if len(path) % 2 else "even"


def _title(path: Path, area: Area) -> str:
    """Return the title of a module, on a ground of its own that hides the edges below it."""
    text = one_line(path[-1])
    ground = Area(area.left + 4, area.top + 3, columns(text) * _LETTER + 6, _LINE)
    at = f'x="{area.left + 7:.1f}" y="{area.top + 13:.1f}"'
    return f'<g class="{_ground(path)}">{_rectangle(ground, 0)}<text class="title" {at}>{escape(text)}</text></g>'


def _box(box: Box, area: Area, lines: Sequence[Line]) -> str:
    classes = ["box", box.kind, *(["folded"] if box.folded else []), *(["changed"] if box.changed else [])]
    middle = area.left + area.width / 2
    texts = "".join(
        f'<text class="{name}" x="{middle:.1f}" y="{area.top + number * _LINE:.1f}">{escape(text)}</text>'
        for number, (name, text) in enumerate(lines, start=1)
    )
    kind = "module" if box.folded else "vertex"
    return (
        f'<g class="{" ".join(classes)}" data-{kind}="{_escaped(box.name)}">'
        f"<title>{_escaped(_description(box))}</title>{_rectangle(area, 4)}{texts}</g>"
    )


def _escaped(text: str) -> str:
    return escape(plain(text))


def _description(box: Box) -> str:
    """Return what a viewer shows while the mouse rests on a box."""
    costs = [f"{box.parameters:,} parameters"] if box.parameters else []
    costs += [f"{box.flops:,} FLOPs"] if box.flops else []
    if box.folded:
        return "\n".join([box.name, f"{len(box.nodes)} vertices", *costs])
    (node,) = box.nodes
    return "\n".join([node.name, *([f"{node.op}({node.constants})"] if node.op else []), *costs])


def _edges(boxes: Sequence[Box], edges: Sequence[tuple[int, int]], layout: Arrangement) -> Iterator[str]:
    for (source, target), points in zip(edges, layout.edges, strict=True):
        ends = f'data-from="{_escaped(boxes[source].name)}" data-to="{_escaped(boxes[target].name)}"'
        yield f'<path class="edge" {ends} d="{_curve(points)}" marker-end="url(#tip)"/>'


def _curve(points: Sequence[Point]) -> str:
    """Return a curve that is vertical at every point, with straight lines between points above each other."""
    parts = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (x0, y0), (x1, y1) in pairwise(points):
        if abs(x0 - x1) >= _STRAIGHT:
            middle = (y0 + y1) / 2
            parts.append(f"C{x0:.1f} {middle:.1f} {x1:.1f} {middle:.1f} {x1:.1f} {y1:.1f}")
        elif y0 != y1:
            parts[-1:] = [] if parts[-1].startswith("V") else parts[-1:]  # one line instead of two
            parts.append(f"V{y1:.1f}")
    return "".join(parts)
