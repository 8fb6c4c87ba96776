"""A graph as a picture in a notebook."""

from __future__ import annotations

import html

from torch_dag_core.graph.dag import DagModule
from torch_dag_show.html import to_html


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
