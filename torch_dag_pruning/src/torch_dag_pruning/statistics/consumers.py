"""The places where slots have an effect through learned weights: contractions over axes that can be pruned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_pruning.axes import Axis
from torch_dag_pruning.statistics.contractions import Contraction, contraction_of

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis

MOST_COLUMNS = 4608
"""Convolutions with more columns have one Gram matrix over their channels, which all taps of the kernel share."""


@dataclass(frozen=True)
class Consumer:
    """A module that contracts over prunable slots with learned weights.

    Attributes:
        name: Of the first vertex that calls the module.
        calls: Names of all vertices that call it.
        module: The module.
        contraction: How it multiplies.
        axis: Of the operand's dimension that is summed over.
        shares_taps: Whether the moments are those of channels, whichever tap of the kernel they lie under.
    """

    name: str
    calls: tuple[str, ...]
    module: Any
    contraction: Contraction
    axis: Axis
    shares_taps: bool

    @property
    def matrix(self) -> Tensor:
        """The weights as (groups, outs, columns), in double precision."""
        return self.contraction.matrix(self.module, self.module.weight.detach()).to(torch.float64)

    @property
    def by_channel(self) -> Tensor:
        """The weights as (groups, outs, channels of a group, taps), in double precision."""
        matrix = self.matrix
        groups, outs, _ = matrix.shape
        return matrix.reshape(groups, outs, self.axis.n // groups, -1)

    @property
    def columns(self) -> int:
        """The number of columns of each group that moments are taken of."""
        matrix = self.matrix
        return self.axis.n // matrix.shape[0] if self.shares_taps else matrix.shape[2]

    @property
    def bytes_needed(self) -> int:
        """The size of the moments."""
        groups = self.matrix.shape[0]
        return 8 * groups * self.columns * (self.columns + 1)

    def rows(self, operand: Tensor, result: Tensor, places: Any) -> Tensor:
        """Return the rows that moments are taken of, of shape (groups, rows, columns)."""
        del result
        rows = self.contraction.operand(self.module, operand, places)
        if self.shares_taps:
            groups, count, _ = rows.shape
            rows = rows.reshape(groups, count, self.axis.n // groups, -1).transpose(2, 3).flatten(1, 2)
        return rows


def consumers(analysis: Analysis) -> dict[str, Consumer]:
    """Return all consumers of a graph by name, in the order of their first calls."""
    calls: dict[Any, list[InnerVertex]] = {}
    for vertex in analysis.dag.inner_vertices:
        relation = analysis.relations.get(vertex.name)
        if relation is not None and relation.sinks and contraction_of(vertex, analysis.registry):
            calls.setdefault(vertex.module, []).append(vertex)
    found = (_consumer(analysis, module, vertices) for module, vertices in calls.items())
    return {consumer.name: consumer for consumer in found}


def _consumer(analysis: Analysis, module: Any, vertices: list[InnerVertex]) -> Consumer:
    first = vertices[0]
    contraction = contraction_of(first, analysis.registry)
    assert contraction is not None
    axis = analysis.operand_axes(first.name, 0)[contraction.channel]
    columns = contraction.matrix(module, module.weight.detach()).shape[2]
    return Consumer(
        first.name, tuple(vertex.name for vertex in vertices), module, contraction, axis, columns > MOST_COLUMNS
    )


def by_call(found: Mapping[str, Consumer]) -> dict[str, Consumer]:
    """Return consumers by the name of every vertex that calls them."""
    return {call: consumer for consumer in found.values() for call in consumer.calls}
