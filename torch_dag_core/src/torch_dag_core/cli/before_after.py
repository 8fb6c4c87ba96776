"""What two versions of a graph cost, side by side: FLOPs, parameters, file size, time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from torch_dag_core.cli.graph_calls import knows_sizes, random_arguments
from torch_dag_core.cli.quantities import count, seconds, size

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule


@dataclass(frozen=True)
class Measure:
    """One quantity, before and after.

    Attributes:
        name: What is measured, for people.
        key: The same for programs, with the unit.
        before: Its value before.
        after: Its value after.
        shown: Returns a value as text.
    """

    name: str
    key: str
    before: float
    after: float
    shown: Callable[[float], str]


def measures(before: DagModule, after: DagModule, saved: Path | None) -> Iterator[Measure]:
    """Measure a graph and what an algorithm made of it.

    FLOPs and time are given where the graph remembers the size of its inputs, sizes of files where the second graph
    is saved.

    Args:
        before: The graph.
        after: What became of it.
        saved: Where that is saved.
    """
    from torch_dag_core.analysis.latency import median_latencies
    from torch_dag_core.analysis.vertex_facts import flattened, vertex_facts

    if knows_sizes(before):
        old, new = (sum(vertex_facts(flattened(dag)).flops.values()) for dag in (before, after))
        yield Measure("FLOPs", "flops", old, new, count)
        yield Measure("MACs (FLOPs / 2)", "macs", old / 2, new / 2, count)
    old, new = (sum(parameter.numel() for parameter in dag.parameters()) for dag in (before, after))
    yield Measure("parameters", "parameters", old, new, count)
    if saved is not None:
        old, new = _saved_size(before, saved.parent), saved.stat().st_size
        yield Measure("file", "file_bytes", old, new, size)
    if knows_sizes(before):
        times = median_latencies((before, after), random_arguments(before))
        shape = "x".join(map(str, before.input_spec.tensors[0].example_shape or ()))
        yield Measure(f"median latency, {shape}", "latency_seconds", times[0], times[1], seconds)


def before_after(measured: Sequence[Measure]) -> Table:
    """Return the table that compares two versions of a graph."""
    table = Table("", "before", "after", "ratio")
    for each in measured:
        ratio = f"{each.after / each.before:.2f}" if each.before else ""
        table.add_row(each.name, each.shown(each.before), each.shown(each.after), ratio)
    return table


def _saved_size(dag: DagModule, folder: Path) -> int:
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary) / "before.safetensors"
        dag.save(path)
        return path.stat().st_size
