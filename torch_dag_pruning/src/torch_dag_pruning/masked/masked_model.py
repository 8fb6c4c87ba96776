"""The model with masks on the edges: what a plan does to the function, before anything is removed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_pruning.axes import Axis, AxisSolver, mask
from torch_dag_pruning.axes.relation import Relation, Sink
from torch_dag_pruning.masked.mask_op import Mask

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis
    from torch_dag_pruning.plan.plan import Plan

MaskOf = Callable[[Axis], Tensor]


def masked_model(
    dag: DagModule, plan: Plan, *, example_inputs: Any = None, analysis: Analysis | None = None
) -> DagModule:
    """Return a copy in which the slots that the plan drops contribute nothing.

    Every edge into a contraction gets a mask, and ops whose statistics run over a masked axis their masked form, so
    that the copy computes what the model without these slots computes. The argument is not changed.

    Args:
        dag: The graph.
        plan: Which slots stay.
        example_inputs: As for `analyze`.
        analysis: That of ``dag``, if it was made before.

    Raises:
        PlanError: the plan does not fit the graph.
    """
    from torch_dag_pruning.analysis.analysis import analyze

    analysis = analysis or analyze(dag, example_inputs)
    plan.validate(analysis)
    masked = analysis.dag.clone()
    lay_masks(masked, analysis, mask_lookup(analysis.solver, hard_masks(analysis, plan)))
    return masked


def hard_masks(analysis: Analysis, plan: Plan, dtype: torch.dtype = torch.float32) -> dict[int, Tensor]:
    """Return the mask of every free atom, by its id; atoms that are no orbit stay whole."""
    masks = {atom.id: torch.ones(atom.n, dtype=dtype) for atom in analysis.solver.atoms()}
    for orbit in analysis.orbits:
        if orbit.key in plan.kept:
            masks[orbit.atom.id] = plan.mask(orbit.key).to(dtype)
    return masks


def mask_lookup(solver: AxisSolver, masks: Mapping[int, Tensor]) -> MaskOf:
    """Return a function from any axis to its mask, each resolved expression computed once."""
    known: dict[Axis, Tensor] = {}

    def mask_of(axis: Axis) -> Tensor:
        resolved = solver.find(axis)
        if resolved not in known:
            known[resolved] = mask(resolved, masks)
        return known[resolved]

    return mask_of


def lay_masks(dag: DagModule, analysis: Analysis, mask_of: MaskOf) -> None:
    """Insert masks into ``dag``, a clone of the analysed graph."""
    for vertex in dag.inner_vertices:
        relation = analysis.relations.get(vertex.name)
        if relation is not None:
            _use_masked_form(dag, vertex, relation, mask_of)
            for sink in relation.sinks:
                _mask_edge(dag, vertex, sink, len(analysis.operand_axes(vertex.name, sink.operand)), mask_of)
    devices = {tensor.device for tensor in dag.parameters()}
    if len(devices) == 1:
        dag.to(devices.pop())


def _use_masked_form(dag: DagModule, vertex: InnerVertex, relation: Relation, mask_of: MaskOf) -> None:
    if relation.masked is not None:
        module = relation.masked(vertex.module, mask_of)
        dag.replace_module(vertex, module.train(vertex.module.training))


def _mask_edge(dag: DagModule, vertex: InnerVertex, sink: Sink, rank: int, mask_of: MaskOf) -> None:
    """Put one mask on an edge, unless it would mask nothing."""
    over_edge = torch.ones(())
    for dim, axis in zip(sink.dims, sink.axes, strict=True):
        vector = mask_of(axis)
        over_edge = over_edge * vector.reshape([-1, *[1] * (rank - 1 - dim % rank)])
    if not bool((over_edge == 1).all()):
        name = dag.unique_name(f"{vertex.name}_mask{sink.operand or ''}")
        dag.insert_before(vertex, Mask.of(over_edge), index=sink.operand, name=name)
