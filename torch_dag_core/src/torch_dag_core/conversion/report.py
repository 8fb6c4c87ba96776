"""A summary of a converted graph as text."""

from __future__ import annotations

from collections import Counter

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.ops.torch_call import TorchCall
from torch_dag_core.plugins.loading import default_registry


def conversion_report(dag: DagModule) -> str:
    """Return the number of vertices of each op, calls and modules outside the vocabulary, and limits on the inputs."""
    registry = default_registry()
    modules = [vertex.module for vertex in dag.inner_vertices]
    kinds = Counter(type(module).__name__ for module in modules)
    calls = Counter(module.function for module in modules if isinstance(module, TorchCall))
    opaque = Counter(
        type(m).__name__ for m in modules if registry.for_module(m) is None and not isinstance(m, DagModule)
    )
    lines = [
        f"{len(modules)} vertices of {len(kinds)} ops: "
        + ", ".join(f"{count} {name}" for name, count in kinds.most_common()),
        f"carried as plain torch calls: {_listed(calls)}; opaque modules: {_listed(opaque)}",
    ]
    spec = dag.input_spec
    lines += [f"holds where {assumption}" for assumption in spec.assumptions]
    lines += ["computes in evaluation alone"] if spec.evaluation_only else []
    lines += [f"note: {note}" for note in spec.notes]
    return "\n".join(lines)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "none"
