"""Insertion of masks into a graph: on the edges into contractions (M1), and into masked forms of ops (M3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_pruning.analysis.analysis import Analysis
from torch_dag_pruning.axes import Atom, Axis, AxisSolver, atoms, mask
from torch_dag_pruning.axes.relation import Relation, Sink
from torch_dag_pruning.errors import AnalysisError
from torch_dag_pruning.masked_ops.form import MaskOf
from torch_dag_pruning.masked_ops.mask import Mask


def mask_lookup(solver: AxisSolver, masks: Mapping[int, Tensor]) -> MaskOf:
    """Return a function that gives the mask of any axis, None if no slot of it can be removed; results are cached.

    Args:
        solver: Resolves the axes.
        masks: The mask of every free atom, a vector of its size, by the id of the atom.
    """
    known: dict[Axis, Tensor | None] = {}

    def mask_of(axis: Axis) -> Tensor | None:
        resolved = solver.find(axis)
        if resolved not in known:
            known[resolved] = mask(resolved, masks) if atoms(resolved) else None
        return known[resolved]

    return mask_of


@dataclass
class LaidMasks:
    """The masks of one graph, which `update` replaces.

    Attributes:
        edges: The masks on edges.
        forms: The masked forms that replace ops with statistics over masked axes.
    """

    edges: list[_Edge] = field(default_factory=list)
    forms: list[Any] = field(default_factory=list)

    def edge_atoms(self) -> list[tuple[Mask, tuple[Atom, ...]]]:
        """Return the masks on edges, each with the atoms in its axes."""
        return [(edge.op, tuple(dict.fromkeys(edge.site.atoms()))) for edge in self.edges]

    def update(self, mask_of: MaskOf) -> None:
        """Replace every mask by what ``mask_of`` returns now; gradients flow into the returned tensors."""
        for edge in self.edges:
            edge.op.mask = edge.site.mask(mask_of)
        for form in self.forms:
            form.update_masks(mask_of)


@dataclass(frozen=True)
class _Site:
    """The place of a mask: some dimensions of an operand with ``rank`` dimensions."""

    sink: Sink
    rank: int

    def atoms(self) -> Iterator[Atom]:
        """Iterate over the atoms in the axes of the mask."""
        for axis in self.sink.axes:
            yield from atoms(axis)

    def mask(self, mask_of: MaskOf) -> Tensor:
        """Return the outer product of the masks of these dimensions, in a shape that broadcasts against the operand."""
        laid = torch.ones(())
        for dim, axis in zip(self.sink.dims, self.sink.axes, strict=True):
            vector = mask_of(axis)
            if vector is not None:
                laid = laid.to(vector.device) * vector.reshape([-1, *[1] * (self.rank - 1 - dim % self.rank)])
        return laid


@dataclass(frozen=True)
class _Edge:
    """The `Mask` op of an edge, with its place."""

    op: Mask
    site: _Site


def lay_masks(dag: DagModule, analysis: Analysis, mask_of: MaskOf) -> None:
    """Insert fixed masks into a graph; edges where all slots are kept get none.

    Args:
        dag: A copy of the analysed graph; it is changed. The masks on edges are in its state dict.
        analysis: The analysis of the graph.
        mask_of: Returns the mask of an axis.
    """
    _Laying(dag, analysis, mask_of, is_fixed=True).run()


def lay_learned_masks(dag: DagModule, analysis: Analysis, mask_of: MaskOf) -> LaidMasks:
    """Insert replaceable masks into a graph, one on every edge into a contraction, whatever their values are.

    Args:
        dag: A copy of the analysed graph; it is changed. The keys of its state dict are not.
        analysis: The analysis of the graph.
        mask_of: Returns the initial mask of an axis.

    Raises:
        AnalysisError: the masked form of an op, defined by a plugin, has no method ``update_masks``.
    """
    return _Laying(dag, analysis, mask_of, is_fixed=False).run()


@dataclass
class _Laying:
    """Inserts masks into one graph."""

    dag: DagModule
    analysis: Analysis
    mask_of: MaskOf
    is_fixed: bool
    laid: LaidMasks = field(default_factory=LaidMasks)
    _forms: dict[Any, nn.Module] = field(default_factory=dict)

    def run(self) -> LaidMasks:
        for vertex in self.dag.inner_vertices:
            relation = self.analysis.relations.get(vertex.name)
            if relation is not None:
                self._use_masked_form(vertex, relation)
                for sink in relation.sinks:
                    self._mask_edge(vertex, sink)
        devices = {tensor.device for tensor in self.dag.parameters()}
        if len(devices) == 1:
            self.dag.to(devices.pop())
        return self.laid

    def _use_masked_form(self, vertex: InnerVertex, relation: Relation) -> None:
        if relation.masked is None:
            return
        # Vertices that share a module share its masked form too, so its tensors keep their names.
        key = (vertex.module, relation.statistics, *map(len, relation.outputs))
        if key not in self._forms:
            form = relation.masked(vertex.module, self.mask_of)
            self._forms[key] = form.train(vertex.module.training)
            self.laid.forms.append(form if self.is_fixed else _updatable(form, vertex.name))
        self.dag.replace_module(vertex, self._forms[key])

    def _mask_edge(self, vertex: InnerVertex, sink: Sink) -> None:
        site = _Site(sink, len(self.analysis.operand_axes(vertex.name, sink.operand)))
        over_edge = site.mask(self.mask_of)
        if self.is_fixed and bool((over_edge == 1).all()):
            return
        op = Mask.of(over_edge, persistent=self.is_fixed)
        name = self.dag.unique_name(f"{vertex.name}_mask{sink.operand or ''}")
        self.dag.insert_before(vertex, op, index=sink.operand, name=name)
        self.laid.edges.append(_Edge(op, site))


def _updatable(form: nn.Module, vertex: str) -> Any:
    """Return the masked form if it has a method ``update_masks``, else raise; forms may come from plugins."""
    if not callable(getattr(form, "update_masks", None)):
        message = f"the masks of {vertex!r} cannot be learned: {type(form).__name__} has no update_masks(mask_of)"
        raise AnalysisError(message)
    return form
