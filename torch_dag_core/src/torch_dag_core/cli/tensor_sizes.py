"""Which layers of a graph have other sizes after an algorithm changed it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from torch_dag_core.analysis.vertex_facts import flattened

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule

_SHOWN = 30


def changed_sizes(before: DagModule, after: DagModule) -> list[dict[str, Any]]:
    """Return the sizes of learned tensors that differ, by name in the order of the first graph, with those after.

    Tensors of one dimension, such as biases and the weights of norms, are left out: they follow the others. A tensor
    that does not exist any more has the size None.
    """
    old, new = ({name: tuple(p.shape) for name, p in flattened(dag).named_parameters()} for dag in (before, after))
    return [
        {"tensor": name, "before": shape, "after": new.get(name)}
        for name, shape in old.items()
        if len(shape) > 1 and new.get(name) != shape
    ]


def sizes_table(changes: Sequence[dict[str, Any]]) -> Table:
    """Return the table of the sizes that changed, of so many as are read with ease."""
    table = Table("tensor", "before", "after")
    for row in changes[:_SHOWN]:
        table.add_row(*map(Text, (row["tensor"], _shown(row["before"]), _shown(row["after"]))))
    if len(changes) > _SHOWN:
        table.caption = f"and {len(changes) - _SHOWN} more, which --json lists"
    return table


def _shown(shape: tuple[int, ...] | None) -> str:
    return "gone" if shape is None else "x".join(map(str, shape))
