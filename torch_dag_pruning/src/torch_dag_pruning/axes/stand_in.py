"""What takes the place of an op when nothing is left of an operand: the language in which stand-ins are written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Protocol

import torch
from torch import Tensor, nn

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.values import Size
from torch_dag_core.graph.vertex import InnerVertex, Vertex


class Emptied(Protocol):
    """A graph from which whole values vanish, as a stand-in sees and changes it."""

    dag: DagModule

    def left_of(self, vertex: InnerVertex, name: str) -> Tensor | None:
        """Return the kept part of a module's own tensor, None if the module has none of this name."""

    def dtype_of(self, value: str) -> torch.dtype:
        """Return the element type of a vertex's first result, as the graph was."""

    def substitute(self, vertex: InnerVertex, module: nn.Module, operands: Sequence[Vertex]) -> InnerVertex:
        """Put another module with other operands in the place of a vertex, under its name, and return that."""

    def skip(self, vertex: InnerVertex, operand: int) -> None:
        """Let the users of a vertex read one of its operands instead."""

    def fill(self, vertex: InnerVertex, value: float) -> None:
        """Make a vertex a constant."""

    def spread(self, vertex: InnerVertex, source: Vertex, dim: int) -> None:
        """Make a vertex the broadcast of a vector along one of its dimensions."""

    def constant(self, value: str, reader: str, fill: float, last: int | None = None) -> tuple[nn.Module, list[Vertex]]:
        """Return a module and operands that give a constant in the shape of a value, or with another last size."""

    def size_of(self, value: str, dim: int, reader: str, likes: list[Vertex]) -> tuple[Size, Fraction]:
        """State a free dimension, as it was, over a live vertex, which is added to ``likes``.

        Returns:
            The size, and how much of it would be left if it were read off the vertex as that is now.
        """


StandIn = Callable[[Emptied, InnerVertex, set[int]], InnerVertex | None]
"""``stand_in(graph, vertex, empty)``: replaces a vertex whose operands numbered ``empty`` have no element left.

Returns the vertex that still has to be rebuilt for what is left of its other operands, None if there is none.
"""
