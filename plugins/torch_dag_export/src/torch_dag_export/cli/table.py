"""The table that shows how an exported model compares with its graph."""

from __future__ import annotations

from rich.table import Table

from torch_dag_core.cli.quantities import seconds, size
from torch_dag_export.report import ExportReport


def report_table(report: ExportReport) -> Table:
    """Return a row for each comparison, the size of the files, and the times."""
    table = Table("", report.format)
    table.add_row("files", size(report.size))
    table.add_row("batch size", "free" if report.free_batch else "fixed")
    for check in report.checks:
        shapes = ", ".join("x".join(map(str, shape)) for shape in check.shapes)
        table.add_row(f"relative difference, {shapes}", f"{check.relative:.2g}")
        if check.same_argmax is not None:
            table.add_row(f"rows with the same argmax, {shapes}", f"{check.same_argmax:.2%}")
    if report.graph_seconds is not None and report.runtime_seconds is not None:
        table.add_row("median latency of the graph", seconds(report.graph_seconds))
        table.add_row(
            "median latency of the export", f"{seconds(report.runtime_seconds)} ({report.latency_ratio:.2f} x)"
        )
    return table
