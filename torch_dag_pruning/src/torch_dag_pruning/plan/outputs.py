"""Outputs of a graph whose channels may be pruned, and which of them a plan keeps."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.entry_checks import require_graphs
from torch_dag_pruning.analysis.analysis import Analysis, analyze
from torch_dag_pruning.axes import Axis, atoms, mask
from torch_dag_pruning.errors import PlanError
from torch_dag_pruning.plan.selectors import Parts, Selector

if TYPE_CHECKING:
    from torch_dag_pruning.plan.plan import Plan


def analyze_freed(dag: DagModule, example_inputs: Any = None, free: Iterable[Selector] | Selector = ()) -> Analysis:
    """Analyse a graph in which output channels of some layers may be pruned.

    Args:
        dag: The graph.
        example_inputs: As for `analyze`.
        free: Selectors of layers (see `torch_dag_pruning.plan.selectors`). Outputs of the graph in which channels occur
            that only such layers make are freed.

    Raises:
        PlanError: a selector names nothing in the graph, or layers that make no channels of an output.
    """
    require_graphs("analyze_freed()", dag)
    selectors = (free,) if isinstance(free, (str, type)) else tuple(free)
    outputs = {vertex.name: vertex for output in dag.output_vertices for vertex in output.predecessors}
    if outputs.keys() >= set(selectors):
        return analyze(dag, example_inputs, free_outputs=[str(name) for name in selectors])
    everything = analyze(dag, example_inputs, free_outputs=list(outputs))
    chosen = {name for selector in selectors for name in _freed(everything, outputs, selector)}
    return analyze(dag, example_inputs, free_outputs=sorted(chosen))


def _freed(analysis: Analysis, outputs: Collection[str], selector: Selector) -> set[str]:
    keys = Parts(analysis).made("free", selector)
    made = {orbit.atom for orbit in analysis.orbits if orbit.key in keys}
    found = {
        name
        for name in outputs
        if not made.isdisjoint(atom for axes in analysis.axes_of(name) for axis in axes for atom in atoms(axis))
    }
    if not found:
        message = f"free: {selector!r} makes no channels of an output; the graph returns {', '.join(sorted(outputs))}"
        raise PlanError(message)
    return found


def kept_outputs(analysis: Analysis, plan: Plan) -> dict[str, dict[int, list[int]]]:
    """Return the kept positions along each dimension of an output that a plan shortens, by the output's vertex.

    An output that is a tuple of tensors is left out.
    """
    masks = plan.atom_masks(analysis)
    found: dict[str, dict[int, list[int]]] = {}
    names = {vertex.name: None for output in analysis.dag.output_vertices for vertex in output.predecessors}
    for name in names:
        tensors = analysis.axes_of(name)
        kept = {dim: _positions(axis, masks) for dim, axis in enumerate(tensors[0] if len(tensors) == 1 else ())}
        shortened = {dim: slots for dim, slots in kept.items() if len(slots) < tensors[0][dim].n}
        if shortened:
            found[name] = shortened
    return found


def _positions(axis: Axis, masks: dict[int, Tensor]) -> list[int]:
    if not atoms(axis):
        return list(range(axis.n))
    slots: list[int] = mask(axis, masks).nonzero().flatten().tolist()
    return slots
