"""The hooks of torch-dag that this plugin implements."""

from __future__ import annotations

from collections.abc import Iterable

from torch_dag_core.plugins.graph_formats import GraphFormat
from torch_dag_core.plugins.hookspecs import hookimpl


@hookimpl
def torch_dag_graph_formats() -> Iterable[GraphFormat]:
    """Add the files that ``torch-dag show --out`` writes, by their endings, and the picture of notebooks."""
    from torch_dag_show.dot import to_dot
    from torch_dag_show.html import to_html
    from torch_dag_show.model_explorer import to_model_explorer
    from torch_dag_show.notebook import preview
    from torch_dag_show.svg import to_svg

    page = "an interactive page in one file, which needs no network"
    return (
        GraphFormat(".html", page, to_html, takes_depth=True, notebook=preview),
        GraphFormat(".dot", "a file for Graphviz, such as `dot -Tsvg`", to_dot, takes_depth=True),
        GraphFormat(".json", "a file for Google's Model Explorer", to_model_explorer),
        GraphFormat(".svg", "a vector graphic for papers", to_svg, takes_depth=True),
    )
