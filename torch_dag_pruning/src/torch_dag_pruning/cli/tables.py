"""What the command prints, as rich tables and lines."""

from __future__ import annotations

from collections import Counter

from rich.table import Table

from torch_dag_core.dag import DagModule
from torch_dag_core.ops.torch_call import TorchCall
from torch_dag_core.registry import Registry
from torch_dag_core.vertex import InnerVertex
from torch_dag_pruning.measuring import Costs


def conversion_lines(dag: DagModule, registry: Registry) -> list[str]:
    """Say what became of the model, and what was carried along without being understood."""
    inner = [vertex for vertex in dag.traverse() if isinstance(vertex, InnerVertex)]
    ops = {type(vertex.module) for vertex in inner}
    lines = [f"{len(inner)} vertices of {len(ops)} ops"]
    calls = Counter(v.module.function for v in inner if isinstance(v.module, TorchCall))
    opaque = Counter(type(v.module).__name__ for v in inner if _is_opaque(v, registry))
    lines += [f"carried as a plain call: {name} ({count})" for name, count in calls.most_common()]
    lines += [f"carried as it is: {name} ({count})" for name, count in opaque.most_common()]
    return lines


def _is_opaque(vertex: InnerVertex, registry: Registry) -> bool:
    return not isinstance(vertex.module, DagModule) and registry.for_module(vertex.module) is None


def costs_table(before: Costs, after: Costs) -> Table:
    """Compare two models."""
    table = Table("", "before", "after", "ratio")
    rows = (
        ("FLOPs", before.flops, after.flops, _count),
        ("parameters", before.parameters, after.parameters, _count),
        ("file", before.file_bytes, after.file_bytes, _bytes),
        ("latency (median)", before.latency, after.latency, _seconds),
    )
    for name, old, new, shown in rows:
        table.add_row(name, shown(old), shown(new), f"{new / old:.2f}" if old else "")
    return table


def _count(value: float) -> str:
    for limit, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.2f}{suffix}"
    return f"{value:.0f}"


def _bytes(value: float) -> str:
    return f"{value / 1e6:.2f} MB"


def _seconds(value: float) -> str:
    return f"{value * 1e3:.2f} ms"
