"""A graph as a picture in a notebook."""

from __future__ import annotations

import base64
import html

from torch_dag_core.errors import InputError
from torch_dag_core.graph.dag import DagModule
from torch_dag_show.folding import Folded, folded
from torch_dag_show.html import to_html
from torch_dag_show.plain_text import plain
from torch_dag_show.scene import Scene, scene_of
from torch_dag_show.svg import drawn

MOST_VERTICES = 5_000
"""Up to which a graph is drawn unasked."""
MOST_BOXES = 60
"""In a picture that is drawn unasked."""
_HEIGHT = 600
"""Of a picture that is drawn unasked, in pixels; the rest of it is scrolled to."""


class Picture:
    """The last value of a cell: ``Picture(dag)`` shows the interactive page inside the notebook."""

    def __init__(self, dag: DagModule, before: DagModule | None = None, *, height: int = 600) -> None:
        """Draw a graph.

        Args:
            dag: The graph.
            before: A graph to compare with.
            height: Height of the picture in pixels.

        Raises:
            InputError: a graph does not run at the sizes that it remembers.
        """
        self.page, self.height = to_html(dag, before), height

    def _repr_html_(self) -> str:
        style = f"width:100%;height:{self.height}px;border:0"
        return f'<iframe srcdoc="{html.escape(self.page)}" style="{style}" sandbox="allow-scripts"></iframe>'


def preview(dag: DagModule) -> str:
    """Return what a notebook shows of a graph unasked: a picture of at most 60 boxes, with no scripts.

    Modules are folded at the greatest depth at which the picture is small enough.

    Raises:
        InputError: the graph does not run at the sizes that it remembers, has more than 5,000 vertices, or gives more
            than 60 boxes even with all modules folded.
    """
    if len(dag) > MOST_VERTICES:
        message = f"{len(dag):,} vertices are too many to draw unasked; torch_dag_show.Picture(dag) draws them"
        raise InputError(message)
    scene = scene_of(dag, overlays=False)
    picture = _small(scene)
    image = base64.b64encode(drawn(scene.title, picture).encode()).decode()
    hidden = sum(box.folded for box in picture.boxes)
    note = f"{hidden} modules are folded; <code>torch_dag_show.Picture(dag)</code> opens them"
    return (
        f'<div style="max-height:{_HEIGHT}px;overflow:auto"><img alt="graph of {html.escape(plain(scene.title))}" '
        f'src="data:image/svg+xml;base64,{image}" style="max-width:none"></div>{f"<p>{note}</p>" if hidden else ""}'
    )


def _small(scene: Scene) -> Folded:
    """Return the most detailed picture that has at most 60 boxes."""
    deepest = max((node.name.count(".") for node in scene.nodes), default=0)
    smallest = folded(scene, 1)
    if len(smallest.boxes) > MOST_BOXES:
        count = f"{len(smallest.boxes):,} boxes, even with folded modules,"
        message = f"{count} are too many to draw unasked; torch_dag_show.Picture(dag) draws them"
        raise InputError(message)
    for depth in range(2, deepest + 2):
        larger = folded(scene, depth)
        if len(larger.boxes) > MOST_BOXES:
            break
        smallest = larger
    return smallest
