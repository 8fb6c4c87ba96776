"""Which values of a pruned graph differ from the kept slots of those of its reference."""

from __future__ import annotations

import torch

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_pruning.analysis.value_axes import ValueAxes, is_constant
from torch_dag_pruning.errors import RecoveryError
from torch_dag_pruning.removal.kept import Kept
from torch_dag_pruning.removal.rebuilding import tensors_by_name


def changed_vertices(pruned: DagModule, axes: ValueAxes, kept: Kept) -> set[str]:
    """Return the names of the vertices whose values may differ: they sum over removed slots, or read such a value.

    Vertices with other weights than the reference count as well, so that a graph may be trained in between.

    Args:
        pruned: What is left of the reference, which was analysed.
        axes: The axes of its values.
        kept: What stays of any axis.

    Raises:
        RecoveryError: a weight has another size than the plan leaves.
    """
    changed: set[str] = set()
    for vertex in pruned.inner_vertices:
        if any(operand.name in changed for operand in vertex.predecessors) or _differs(vertex, axes, kept):
            changed.add(vertex.name)
    return changed


def _differs(vertex: InnerVertex, axes: ValueAxes, kept: Kept) -> bool:
    """Tell whether a vertex makes another value of equal operands."""
    if is_constant(vertex):
        return False
    relation = axes.analysis.relations.get(vertex.name)
    if relation is None:
        return True
    summed = [axis for sink in relation.sinks for axis in sink.axes]
    return not kept.is_whole([*summed, *relation.statistics]) or _has_other_weights(vertex, axes, kept)


def _has_other_weights(vertex: InnerVertex, axes: ValueAxes, kept: Kept) -> bool:
    before = axes.analysis.dag.get_vertex_by_name(vertex.name)
    assert isinstance(before, InnerVertex)
    parameters = axes.analysis.relations[vertex.name].parameters
    wanted, given = tensors_by_name(before.module), tensors_by_name(vertex.module)
    if wanted.keys() != given.keys():
        return True
    for name, tensor in given.items():
        part = kept.take(wanted[name].detach(), parameters.get(name, ()))
        if part.shape != tensor.shape:
            message = (
                f"vertex {vertex.name!r} has a {name} of shape {tuple(tensor.shape)}, the plan leaves "
                f"{tuple(part.shape)}; pass the plan that the graph was pruned with"
            )
            raise RecoveryError(message)
        if not torch.equal(part, tensor.detach().to(part.device)):
            return True
    return False
