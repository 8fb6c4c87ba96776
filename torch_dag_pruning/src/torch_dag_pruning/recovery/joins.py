"""Residual additions: what a layer in front of one should give, so that the sum is that of the reference.

The way from the layer to the addition may multiply and shift channels, as batch norms in evaluation and layer scales
do. What the sum lacks because of its other operand is then divided by the product of those factors.
(GPTAQ, arXiv:2504.02692, corrects quantised layers by a similar difference.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from torch_dag_core.graph.builtin_ops import TensorHolder
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.interpret import live_inner_vertices
from torch_dag_core.graph.program import chosen_operand
from torch_dag_core.graph.vertex import InnerVertex, Vertex
from torch_dag_core.plugins.registry import Registry

BATCH_NORMS: Final = frozenset({"core.batch_norm1d", "core.batch_norm2d", "core.batch_norm3d"})
_LEAST_FACTOR = 1e-4
"""Channels that are multiplied by less than this share of the largest factor are not used for corrections."""

Factor = Callable[[int], Tensor]
"""Gives what a vertex multiplies its operand by now, to be broadcast against it; takes the rank of the operand."""


@dataclass(frozen=True)
class Join:
    """The addition that a layer's result goes into.

    Attributes:
        vertex: Name of the addition.
        other: Name of the vertex that gives the other operand.
        through: Names of the vertices on the way.
        factors: What the vertices on the way multiply by.
    """

    vertex: str
    other: str
    through: tuple[str, ...]
    factors: tuple[Factor, ...]

    def needed(self, lacking: Tensor) -> Tensor:
        """Return what must be added to the layer's result so that the sum grows by ``lacking``."""
        for factor in self.factors:
            values = factor(lacking.dim())
            is_small = values.abs() <= _LEAST_FACTOR * values.abs().max()
            lacking = torch.where(is_small, 0.0, lacking / torch.where(is_small, 1.0, values))
        return lacking


class Joins:
    """Finds the additions in a graph that single layers lead to."""

    def __init__(self, dag: DagModule, registry: Registry) -> None:
        self._registry = registry
        self._live = set(live_inner_vertices(dag, training=False))
        self._outputs = set(dag.output_vertex(training=False).predecessors)

    def behind(self, vertex: InnerVertex) -> Join | None:
        """Return the addition that the result of a vertex goes into, and nowhere else."""
        through: list[str] = []
        factors: list[Factor] = []
        while True:
            found = self._only_reader(vertex)
            if found is None:
                return None
            reader, index = found
            if self._key(reader) == "core.add" and len(reader.predecessors) == 2:
                return Join(reader.name, reader.predecessors[1 - index].name, tuple(through), tuple(factors))
            passing = _PASSING.get(self._key(reader))
            factor = None if passing is None else passing(reader, index)
            if factor is None:
                return None
            through.append(reader.name)
            factors += [factor] if callable(factor) else []
            vertex = reader

    def _only_reader(self, vertex: Vertex) -> tuple[InnerVertex, int] | None:
        readers = [
            (user, index)
            for user, index in vertex.uses
            if isinstance(user, InnerVertex) and user in self._live and _reads(user, index)
        ]
        return readers[0] if len(readers) == 1 and vertex not in self._outputs else None

    def _key(self, vertex: InnerVertex) -> str:
        spec = self._registry.for_module(vertex.module)
        return "" if spec is None else spec.key


def _reads(user: InnerVertex, index: int) -> bool:
    """Tell whether evaluation reads an operand."""
    chosen = chosen_operand(user, training=False)
    return chosen is None or user.predecessors[index] is chosen


def _nothing(vertex: InnerVertex, index: int) -> bool:
    """Stand for ops that give their operand in evaluation."""
    del vertex, index
    return True


def _batch_norm(vertex: InnerVertex, index: int) -> Factor | None:
    del index
    module: Any = vertex.module
    return None if module.running_var is None else lambda rank: batch_norm_factor(module, rank)


def batch_norm_factor(module: Any, rank: int) -> Tensor:
    """Return what a batch norm multiplies the channels of an operand of some rank by in evaluation."""
    factor: Tensor = (module.running_var + module.eps).rsqrt()
    if module.weight is not None:
        factor = factor * module.weight.detach()
    return factor.reshape(-1, *[1] * (rank - 2))


def _scale(vertex: InnerVertex, index: int) -> Factor | None:
    """Return a learned scale that multiplies each channel, such as a layer scale."""
    if len(vertex.predecessors) != 2:
        return None
    other = vertex.predecessors[1 - index]
    if not isinstance(other, InnerVertex) or not isinstance(other.module, TensorHolder):
        return None
    holder = other.module
    return lambda _: holder.value.detach()


_PASSING: Final[dict[str, Callable[[InnerVertex, int], Any]]] = {
    **dict.fromkeys(BATCH_NORMS, _batch_norm),
    **dict.fromkeys(
        ("core.identity", "core.dropout", "core.drop_path", "core.stochastic_depth", "core.training_switch"), _nothing
    ),
    "core.mul": _scale,
}
