"""What the command prints, as rich tables."""

from __future__ import annotations

from rich.table import Table

from torch_dag_pruning.measuring import Costs


def costs_table(before: Costs, after: Costs, timed_on: str) -> Table:
    """Compare two models, timed on an input of the given size."""
    table = Table("", "before", "after", "ratio")
    rows = (
        ("FLOPs", before.flops, after.flops, _count),
        ("parameters", before.parameters, after.parameters, _count),
        ("file", before.file_bytes, after.file_bytes, _bytes),
        (f"median latency, {timed_on}", before.latency, after.latency, _seconds),
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
