"""Pictures of a graph, drawn by the plugin that offers their format."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from torch_dag_core.errors import PluginLoadError
from torch_dag_core.graph.entry_checks import require_graphs
from torch_dag_core.plugins.graph_formats import GraphFormat
from torch_dag_core.plugins.loading import list_plugins, named_contributions

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule

_HOOK = "torch_dag_graph_formats"


def graph_format(suffix: str) -> GraphFormat:
    """Return the format of files with an ending, such as ``".svg"``.

    Raises:
        PluginLoadError: no plugin that takes part offers it.
    """
    formats = named_contributions(_HOOK, GraphFormat)
    if suffix not in formats:
        known = ", ".join(formats) or f"none; {_missing()}"
        message = f"no plugin writes {suffix or 'files without an ending'!r}; known endings: {known}"
        raise PluginLoadError(_HOOK, message)
    return formats[suffix]


def picture(dag: DagModule, suffix: str, before: DagModule | None = None, depth: int | None = None) -> str:
    """Return a graph in the format of files with an ending.

    Args:
        dag: The graph.
        suffix: The ending, such as ``".svg"``.
        before: A graph to compare with, such as the one that was pruned.
        depth: How many parts the names of folded modules have; None draws every vertex.

    Raises:
        PluginLoadError: no plugin that takes part offers the format.
        InputError: a graph does not run at the sizes that it remembers, or the depth is less than 1.
    """
    require_graphs("a picture", *(() if before is None else (before,)), dag)
    return graph_format(suffix).drawn(dag, before, depth)


def notebook_html(dag: DagModule) -> str:
    """Return what a notebook shows of a graph: a picture, or its counts with the reason why there is no picture.

    Every error becomes such a reason, since an error while a value is displayed would hide the value.
    """
    try:
        shown = [fmt.notebook for fmt in named_contributions(_HOOK, GraphFormat).values() if fmt.notebook is not None]
        if shown:
            return shown[0](dag)
        reason = f"there is no picture: {_missing()}"
    except Exception as error:  # noqa: BLE001
        reason = f"there is no picture: {type(error).__name__}: {error}"
    return f"<pre>{html.escape(_counts(dag))}</pre><p>{html.escape(reason)}</p>"


def _missing() -> str:
    """Return how to get pictures."""
    absent = [info.name for info in list_plugins() if info.disabled or info.error is not None]
    left_out = f" (installed, but left out: {', '.join(absent)})" if absent else ""
    return f"pip install torch-dag-show adds .html, .dot, .json and .svg{left_out}"


def _counts(dag: DagModule) -> str:
    try:
        return dag.summary()
    except Exception:  # noqa: BLE001
        return object.__repr__(dag)
