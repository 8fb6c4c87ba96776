"""What is said of a file that was just saved: how to load it, and what it needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from torch_dag_core.analysis.vertex_facts import flattened
from torch_dag_core.cli.quantities import size
from torch_dag_core.plugins.calling import is_foreign
from torch_dag_core.plugins.loading import default_registry

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule


def needed_distributions(dag: DagModule) -> list[str]:
    """Return the distributions, apart from the core, whose ops a graph contains, so that its file needs them."""
    registry = default_registry()
    specs = (registry.for_module(vertex.module) for vertex in flattened(dag).inner_vertices)
    return sorted({spec.owner for spec in specs if spec is not None and is_foreign(spec.owner)})


def loading_lines(path: Path, dag: DagModule) -> str:
    """Return a message that names a saved file, and shows what is needed to load it.

    Args:
        path: The file.
        dag: What was saved in it.
    """
    needed = needed_distributions(dag)
    condition = (
        f"without the model's source, but with {' and '.join(needed)} installed (pip install {' '.join(needed)})"
        if needed
        else "with neither the model's source nor its plugins"
    )
    return (
        f"saved {path} ({size(path.stat().st_size)}); to load it, {condition}:\n\n"
        f"    import torch_dag_core as td\n"
        f"    model = td.load({str(path)!r})\n"
        f"    output = model(images)\n"
    )
