"""The command ``torch-dag flops``: what a model costs, as a tree of its modules."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from torch_dag_core.cli.answers import answer, answers, say
from torch_dag_core.cli.examples import example
from torch_dag_core.cli.model_options import takes_model
from torch_dag_core.cli.quantities import count, size

if TYPE_CHECKING:
    from torch_dag_core.analysis.cost_table import CostTable, VertexCost
    from torch_dag_core.cli.model_choice import ModelChoice

_UNITS = "FLOPs count 2 for a multiply-accumulate (MAC), 1 for each element of other work; activations are all results"


@dataclass
class Node:
    """A module of the model, or a vertex, with everything inside it.

    Attributes:
        name: Its path; empty for the whole model.
        op: Class of the vertex; empty for a module of several.
        parameters: Elements of all parameters.
        flops: FLOPs of one call.
        activation_bytes: Bytes of the results of all vertices.
        children: What it consists of, in the order of the graph.
    """

    name: str
    op: str = ""
    parameters: int = 0
    flops: int = 0
    activation_bytes: int = 0
    children: dict[str, Node] = field(default_factory=dict)

    @classmethod
    def of(cls, table: CostTable) -> Node:
        """Return the tree of a graph's vertices, whose names are the paths of modules."""
        root = cls("")
        for row in table.rows:
            root._add(row)
        return root

    def _add(self, row: VertexCost) -> None:
        node = self
        node._count(row)
        parts = row.name.split(".")
        for depth, part in enumerate(parts, start=1):
            node = node.children.setdefault(part, Node(".".join(parts[:depth])))
            node._count(row)
        node.op = row.op

    def _count(self, row: VertexCost) -> None:
        self.parameters += row.parameters
        self.flops += row.flops
        self.activation_bytes += sum(
            math.prod(shape) * dtype.itemsize for shape, dtype in zip(row.outputs, row.dtypes, strict=True)
        )

    def walk(self, deepest: int | None, depth: int = 0) -> Iterator[tuple[int, Node]]:
        """Iterate over the tree, parents first, each with its depth."""
        yield depth, self
        if deepest is None or depth < deepest:
            for child in self.children.values():
                yield from child.walk(deepest, depth + 1)


@click.command(epilog=example("torch-dag flops timm:resnet18 --depth 1"))
@takes_model
@click.option("--depth", type=click.IntRange(min=0), default=2, show_default=True, help="How many levels are shown.")
@answers
def flops(choice: ModelChoice, depth: int) -> None:
    """Show what MODEL costs, by module: parameters, FLOPs and the memory of its activations.

    The cost is that of one sample, where the model takes any number; of the given inputs with --input or --inputs.
    """
    from torch_dag_core.analysis.cost_table import flops as cost_table

    given = choice.inputs() if choice.example.shapes or choice.example.file else None
    table = cost_table(choice.graph(), given)
    root = Node.of(table)
    say(_table(root, depth))
    if table.unknown:
        say(f"cost unknown, counted as one FLOP per output element: {', '.join(table.unknown)}")
    say(f"{count(root.flops)} FLOPs ({count(root.flops / 2)} MACs) for one call. {_UNITS}.")
    answer(
        model=choice.reference, flops=root.flops, macs=root.flops / 2, parameters=root.parameters,
        activation_bytes=root.activation_bytes, unknown=sorted(table.unknown),
        modules=[
            {"name": node.name, "op": node.op, "parameters": node.parameters, "flops": node.flops,
             "activation_bytes": node.activation_bytes}
            for _, node in root.walk(depth)
        ],
    )  # fmt: skip


def _table(root: Node, depth: int) -> Table:
    table = Table("module", "op")
    for column in ("parameters", "FLOPs", "share", "activations"):
        table.add_column(column, justify="right")
    for level, node in root.walk(depth):
        name = node.name.rpartition(".")[2] or "the model"
        share = f"{node.flops / root.flops:.1%}" if root.flops else ""
        cells = ("  " * level + name, node.op, count(node.parameters), count(node.flops), share)
        table.add_row(*map(Text, (*cells, size(node.activation_bytes))))
    return table
