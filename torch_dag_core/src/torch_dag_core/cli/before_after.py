"""What two versions of a graph cost, side by side: FLOPs, parameters, file size, time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.table import Table

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule

Row = tuple[str, float, float, Callable[[float], str]]


def before_after(before: DagModule, after: DagModule, saved: Path | None) -> Table:
    """Measure a graph and what an algorithm made of it, and return the table that compares them.

    FLOPs and time are given where the graph remembers the size of its inputs, sizes of files where the second graph
    is saved.

    Args:
        before: The graph.
        after: What became of it.
        saved: Where that is saved.
    """
    table = Table("", "before", "after", "ratio")
    for name, old, new, shown in _rows(before, after, saved):
        table.add_row(name, shown(old), shown(new), f"{new / old:.2f}" if old else "")
    return table


def _rows(before: DagModule, after: DagModule, saved: Path | None) -> Iterator[Row]:
    from torch_dag_core.analysis.latency import median_latencies
    from torch_dag_core.analysis.vertex_facts import flattened, vertex_facts

    knows_sizes = before.input_spec.tensors and all(spec.example_shape for spec in before.input_spec.tensors)
    if knows_sizes:
        old, new = (sum(vertex_facts(flattened(dag)).flops.values()) for dag in (before, after))
        yield "FLOPs", old, new, _count
    old, new = (sum(parameter.numel() for parameter in dag.parameters()) for dag in (before, after))
    yield "parameters", old, new, _count
    if saved is not None:
        yield "file", _saved_size(before, saved.parent), saved.stat().st_size, _bytes
    if knows_sizes:
        times = median_latencies((before, after), _arguments(before))
        size = "x".join(map(str, before.input_spec.tensors[0].example_shape or ()))
        yield f"median latency, {size}", times[0], times[1], _seconds


def _saved_size(dag: DagModule, folder: Path) -> int:
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        path = Path(temporary) / "before.safetensors"
        dag.save(path)
        return path.stat().st_size


def _arguments(dag: DagModule) -> tuple[Any, ...]:
    """Return random arguments of the sizes that a graph remembers."""
    from torch_dag_core.analysis.random_inputs import random_input
    from torch_dag_core.graph.structure import unpack

    device = next((tensor.device for tensor in (*dag.parameters(), *dag.buffers())), torch.device("cpu"))
    tensors = [random_input(spec.example_shape or (), spec.dtype, device) for spec in dag.input_spec.tensors]
    parameters = dag.input_spec.for_inputs(len(tensors)).parameters
    return tuple(unpack(parameter.structure, tensors) for parameter in parameters)


def _count(value: float) -> str:
    for limit, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:.2f}{suffix}"
    return f"{value:.0f}"


def _bytes(value: float) -> str:
    return f"{value / 1e6:.2f} MB"


def _seconds(value: float) -> str:
    return f"{value * 1e3:.2f} ms"
