"""The pruning analysis of a graph: what can be pruned, what cannot and why, and how much it would save."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor

from torch_dag_core.graph.builtin_ops import Constant
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.entry_checks import require_graphs
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_core.plugins.loading import default_registry
from torch_dag_core.plugins.registry import Registry
from torch_dag_core.shape_run import ShapeRun
from torch_dag_pruning.analysis.example_sizes import batch_of, blank_inputs, filled, is_rigid, sized_runs
from torch_dag_pruning.analysis.expansion import expanded, is_plain, shared_clone
from torch_dag_pruning.analysis.freezing import freeze_unprunable
from torch_dag_pruning.analysis.graph_cost import GraphCost
from torch_dag_pruning.analysis.installed_rules import axis_rules
from torch_dag_pruning.analysis.orbits import Orbit, Place, find_orbits
from torch_dag_pruning.analysis.polynomials import CostModel
from torch_dag_pruning.analysis.propagation import Propagation
from torch_dag_pruning.analysis.report import Locks, to_text
from torch_dag_pruning.analysis.resolution import Resolution
from torch_dag_pruning.axes import Cause
from torch_dag_pruning.axes.relation import Axes, AxisStore, Relation
from torch_dag_pruning.errors import AnalysisError

__all__ = ["Analysis", "Orbit", "Place", "analyze"]


def analyze(
    dag: DagModule, example_inputs: Any = None, *, free_outputs: Collection[str] = (), registry: Registry | None = None
) -> Analysis:
    """Find out what can be pruned in a graph. Linear in its size; does not change the graph.

    Composite ops are expanded first. Then the graph is run without data and the axis rules are applied, at two input
    sizes if the graph leaves sizes free: axes that are related at one of them only are not pruned.

    Args:
        dag: The graph.
        example_inputs: Determine the input sizes; by default, those at which the graph was traced.
        free_outputs: Names of returned vertices whose channels may be pruned nevertheless, for example the features of
            a backbone whose consumer will be adapted.
        registry: The vocabulary; that of the core and all installed plugins by default.

    Raises:
        AnalysisError: no input sizes are known, ``free_outputs`` names a vertex that the graph does not return, or an
            axis rule contradicts the sizes that its op gives.
        InputError: the graph does not run at these sizes.
    """
    require_graphs("analyze()", dag)
    registry = registry or default_registry()
    rules = axis_rules(registry)
    _refuse_unknown(dag, free_outputs)
    example = blank_inputs(dag, example_inputs)
    plain = is_plain(dag, registry, rules)
    run = ShapeRun(registry)
    graph = dag if plain else expanded(dag, example, run, rules)
    store = AxisStore()
    sizes: list[list[Tensor]] = []
    propagations: list[Propagation] = []
    for inputs, values in sized_runs(graph, example, run):
        sizes.append(inputs)
        propagations.append(Propagation(graph, registry, rules, store, free_outputs, values).run())
        if is_rigid(graph, values):
            break
    freeze_unprunable(store.solver, propagations)
    return Analysis(dag, graph, propagations[0], registry, sizes[0], example_inputs)


def _refuse_unknown(dag: DagModule, free_outputs: Collection[str]) -> None:
    names = {vertex.name for output in dag.output_vertices for vertex in output.predecessors}
    unknown = sorted(set(free_outputs) - names)
    if unknown:
        message = f"the graph returns no vertex {unknown[0]!r}; free_outputs may name {', '.join(sorted(names))}"
        raise AnalysisError(message)


def _versions(dag: DagModule) -> list[tuple[DagModule, int]]:
    """Return the edit counts of a graph and of all graphs nested in it."""
    return [(module, module._version) for module in dag.modules() if isinstance(module, DagModule)]


class Analysis:
    """The result of `analyze`. ``print(analysis)`` shows the report.

    An analysis is valid as long as the graph is not edited. It does not depend on the values of parameters.
    """

    def __init__(
        self, original: DagModule, source: DagModule, propagation: Propagation, registry: Registry,
        sizes: Sequence[Tensor], example_inputs: Any,
    ) -> None:  # fmt: skip
        self._original, self._source, self._propagation, self.registry = original, source, propagation, registry
        self._sizes, self._batch, self._example_inputs = sizes, batch_of(source, sizes), example_inputs
        self._versions = _versions(original)
        self.solver = propagation.store.solver

    def require_current(self) -> None:
        """Refuse to go on with a graph that is no longer the analysed one.

        Raises:
            AnalysisError: the graph, or one nested in it, was edited since.
        """
        if _versions(self._original) != self._versions:
            message = "the graph was edited after it was analysed; analyze it again"
            raise AnalysisError(message)

    def require(self, dag: DagModule) -> None:
        """Refuse a graph that is not the analysed one, as it was.

        Raises:
            AnalysisError: the analysis is of another graph (a clone is another one), or the graph was edited since.
        """
        require_graphs("require()", dag)
        if dag is not self._original:
            message = "the analysis is of another graph; pass the graph that was analysed, or analyze this one"
            raise AnalysisError(message)
        self.require_current()

    @cached_property
    def dag(self) -> DagModule:
        """The analysed graph: a copy without nested graphs and composite ops that shares tensors with the original.

        Raises:
            AnalysisError: the original was edited after the analysis.
        """
        if self._source is self._original:
            self.require_current()
        return shared_clone(self._source)

    @cached_property
    def inputs(self) -> list[Tensor]:
        """One tensor for each input vertex, of the analysed sizes: samples of the example, or random numbers."""
        return filled(self._source, self._sizes, self._example_inputs)

    # Axes ------------------------------------------------------------------------------------------------------

    @cached_property
    def _resolution(self) -> Resolution:
        return Resolution(self.solver)

    @cached_property
    def relations(self) -> dict[str, Relation]:
        """The resolved relation of each vertex, by name."""
        modules = {vertex.name: vertex.module for vertex in self._source.inner_vertices}
        return {
            name: self._resolution.relation(modules[name], relation)
            for name, relation in self._propagation.relations.items()
        }

    def axes_of(self, vertex: str) -> list[Axes]:
        """Return the axes of each output tensor of a vertex; for a constant, those of its first use."""
        return [self._resolution.axes(axes) for axes in self._propagation.outputs[vertex]]

    def operand_axes(self, vertex: str, index: int) -> Axes:
        """Return the axes of one operand of a vertex. A constant has its own axes at each use."""
        return self._resolution.axes(self._propagation.operands[vertex][index])

    @cached_property
    def parameter_axes(self) -> dict[str, Axes]:
        """The axes of each parameter and buffer, by its name in ``dag``; a shared tensor is listed once."""
        found: dict[str, Axes] = {}
        seen: set[int] = set()
        for vertex, name, tensor, axes in self._tensors():
            if id(tensor) not in seen:
                seen.add(id(tensor))
                found[f"{vertex.name}.{name}"] = self._resolution.axes(axes)
        return found

    def _tensors(self) -> Iterator[tuple[InnerVertex, str, Any, Axes]]:
        """Iterate over (vertex, tensor name, tensor, axes) for all parameters and buffers that a rule describes."""
        for vertex in self._source.inner_vertices:
            relation = self._propagation.relations.get(vertex.name)
            if relation is None or isinstance(vertex.module, Constant):
                continue  # a constant has its own axes at each use
            for name, axes in relation.parameters.items():
                yield vertex, name, getattr(vertex.module, name), axes

    # Orbits and costs ------------------------------------------------------------------------------------------

    @cached_property
    def orbits(self) -> tuple[Orbit, ...]:
        """All orbits, in the order of their first places in the graph."""
        tensors = ((vertex, name, axes) for vertex, name, _, axes in self._tensors())
        return find_orbits(self.solver, tensors, self._propagation.relations.values())

    @cached_property
    def _graph_cost(self) -> GraphCost:
        return GraphCost(self._source, self._propagation, self.registry, self._batch)

    @cached_property
    def _parameters(self) -> CostModel:
        return self._graph_cost.parameters((tensor, axes) for _, _, tensor, axes in self._tensors())

    def _all_counts(self, counts: Mapping[int, Any]) -> dict[int, Any]:
        return {orbit.atom.id: counts.get(orbit.atom.id, orbit.n) for orbit in self.orbits}

    def cost(self, counts: Mapping[int, Any] | None = None) -> Any:
        """Return the FLOPs of one sample in evaluation when each orbit keeps ``counts[orbit.atom.id]`` slots.

        Args:
            counts: Numbers of slots by atom id: ints, or scalar tensors, in which the result is differentiable. Orbits
                that are left out keep all slots.
        """
        return self._graph_cost.flops(self._all_counts(counts or {}))

    def parameters_count(self, counts: Mapping[int, Any] | None = None) -> Any:
        """Return the number of parameter elements; ``counts`` as for `cost`."""
        return self._parameters(self._all_counts(counts or {}))

    @cached_property
    def _least(self) -> dict[int, int]:
        return {orbit.atom.id: max(1, orbit.minimum) for orbit in self.orbits}

    @cached_property
    def removable_share(self) -> float:
        """Share of the FLOPs that is removed when every orbit keeps its minimum, but at least one slot."""
        now = self.cost()
        return 1.0 - float(self.cost(self._least)) / float(now) if now else 0.0

    # The report ------------------------------------------------------------------------------------------------

    @cached_property
    def _locks(self) -> Locks:
        return Locks.of(self.solver.find, self._propagation, self._graph_cost.flops_at(self._least))

    @property
    def locked(self) -> dict[Cause, Any]:
        """FLOPs that stay, with every orbit at its minimum, because of frozen channels; by the cause of the freeze."""
        return {cause: share.flops for cause, share in self._locks.locked.items()}

    @property
    def floor(self) -> Any:
        """FLOPs that stay, with every orbit at its minimum, in vertices without frozen channels."""
        return self._locks.floor

    def __str__(self) -> str:
        return to_text(self, self._locks)
