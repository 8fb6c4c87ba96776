"""What can be pruned in a graph, what cannot and why, and what it would save."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor

from torch_dag_core.analysis.shape_run import ShapeRun
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_core.ops.tensors import Constant
from torch_dag_core.plugins.calling import errors_attributed_to
from torch_dag_core.plugins.loading import add_hookspecs, by_key, default_registry
from torch_dag_core.plugins.registry import Registry
from torch_dag_pruning import hookspecs
from torch_dag_pruning.analysis.closing import close
from torch_dag_pruning.analysis.cost import CostModel
from torch_dag_pruning.analysis.costing import Costing
from torch_dag_pruning.analysis.example_sizes import batch_of, blank_inputs, filled, hints, is_rigid
from torch_dag_pruning.analysis.expansion import expanded, is_plain, shared_clone
from torch_dag_pruning.analysis.orbits import Orbit, Place, find_orbits
from torch_dag_pruning.analysis.propagation import Propagation
from torch_dag_pruning.analysis.report import Locks, to_text
from torch_dag_pruning.analysis.resolution import Resolution
from torch_dag_pruning.axes import Cause
from torch_dag_pruning.axes.relation import Axes, AxisRule, AxisStore, Context, Relation, Rule, rules_by_key
from torch_dag_pruning.errors import AnalysisError
from torch_dag_pruning.rules import core_rules

__all__ = ["Analysis", "Orbit", "Place", "analyze", "axis_rules"]


def analyze(
    dag: DagModule, example_inputs: Any = None, *, free_outputs: Collection[str] = (), registry: Registry | None = None
) -> Analysis:
    """Find out what can be pruned in a graph, which is not changed. Linear in its size.

    Composite ops are taken apart first. The graph runs without data, at two sizes where it leaves sizes free: what
    holds only at one of them is a coincidence and is not pruned.

    Args:
        dag: The graph.
        example_inputs: Give the sizes; those at which the graph was traced by default.
        free_outputs: Names of returned vertices whose channels may be pruned all the same, as those of a feature
            extractor whose user follows.
        registry: The vocabulary; that of the installed plugins by default.

    Raises:
        AnalysisError: the sizes are unknown, or a rule contradicts its op.
        InputError: the graph does not run at these sizes.
    """
    registry = registry or default_registry()
    rules = axis_rules()
    _refuse_unknown(dag, free_outputs)
    example = blank_inputs(dag, example_inputs)
    plain = is_plain(dag, registry, rules)
    graph = dag if plain else expanded(dag, example, registry, rules)
    store = AxisStore()
    sizes = hints(graph, example)
    run = ShapeRun(registry)
    propagations: list[Propagation] = []
    for inputs in sizes:
        values = run.values(graph, inputs)
        propagations.append(Propagation(graph, registry, rules, store, free_outputs, values).run())
        if is_rigid(graph, values):
            break
    close(store.solver, propagations)
    return Analysis(graph, propagations[0], registry, sizes[0], example_inputs, is_shared=plain)


def axis_rules() -> dict[str, Rule]:
    """Return the rule of every op that has one, by key; plugins cannot replace those of the core or of each other."""
    add_hookspecs(hookspecs)
    own = rules_by_key(core_rules())
    added = by_key("torch_dag_axis_rules", AxisRule, lambda rule: rule.keys, taken=own)
    return own | {key: _blamed(owner, key, rule.rule) for key, (owner, rule) in added.items()}


def _blamed(owner: str, key: str, rule: Rule) -> Rule:
    """Return the rule of a plugin, whose errors name its distribution."""

    def call(ctx: Context) -> Relation:
        with errors_attributed_to(owner, f"the axis rule of {key!r}"):
            return rule(ctx)

    return call


def _refuse_unknown(dag: DagModule, free_outputs: Collection[str]) -> None:
    names = {vertex.name for output in dag.output_vertices for vertex in output.predecessors}
    unknown = sorted(set(free_outputs) - names)
    if unknown:
        message = f"the graph returns no vertex {unknown[0]!r}; free_outputs may name {', '.join(sorted(names))}"
        raise AnalysisError(message)


class Analysis:
    """The result of `analyze`; print it for the report.

    It holds while the graph is not edited; new values of its parameters do not matter.
    """

    def __init__(
        self, source: DagModule, propagation: Propagation, registry: Registry, sizes: Sequence[Tensor],
        example_inputs: Any, *, is_shared: bool,
    ) -> None:  # fmt: skip
        self._source, self._propagation, self.registry = source, propagation, registry
        self._sizes, self._batch, self._example_inputs = sizes, batch_of(source, sizes), example_inputs
        self._is_shared, self._version = is_shared, source._version
        self.solver = propagation.store.solver

    @cached_property
    def dag(self) -> DagModule:
        """The analysed graph: a flat copy without composite ops that shares all tensors with the original.

        Raises:
            AnalysisError: the original was edited since.
        """
        if not self._is_shared:
            return self._source
        if self._source._version != self._version:
            message = "the graph was edited after it was analysed; analyze it again"
            raise AnalysisError(message)
        return shared_clone(self._source)

    @cached_property
    def inputs(self) -> list[Tensor]:
        """One tensor for each input vertex, of the analysed sizes: the example's, or random ones."""
        return filled(self._source, self._sizes, self._example_inputs)

    # Axes ------------------------------------------------------------------------------------------------------

    @cached_property
    def _resolution(self) -> Resolution:
        return Resolution(self.solver)

    @cached_property
    def relations(self) -> dict[str, Relation]:
        """What each vertex says of its axes, by name, resolved."""
        modules = {vertex.name: vertex.module for vertex in self._source.inner_vertices}
        return {
            name: self._resolution.relation(modules[name], relation)
            for name, relation in self._propagation.relations.items()
        }

    def axes_of(self, vertex: str) -> list[Axes]:
        """Return the axes of each tensor that a vertex gives; of a constant, those at its first use."""
        return [self._resolution.axes(axes) for axes in self._propagation.outputs[vertex]]

    def operand_axes(self, vertex: str, index: int) -> Axes:
        """Return the axes of one operand of a vertex; a constant has others at each use."""
        return self._resolution.axes(self._propagation.operands[vertex][index])

    @cached_property
    def parameter_axes(self) -> dict[str, Axes]:
        """The axes of each learned tensor and buffer by its name in ``dag``, tied ones once."""
        found: dict[str, Axes] = {}
        seen: set[int] = set()
        for vertex, name, tensor, axes in self._tensors():
            if id(tensor) not in seen:
                seen.add(id(tensor))
                found[f"{vertex.name}.{name}"] = self._resolution.axes(axes)
        return found

    def _tensors(self) -> Iterator[tuple[InnerVertex, str, Any, Axes]]:
        """Iterate over the tensors of all modules that a rule describes, in vertex order."""
        for vertex in self._source.inner_vertices:
            relation = self._propagation.relations.get(vertex.name)
            if relation is None or isinstance(vertex.module, Constant):
                continue  # a constant is cut for each of its uses
            for name, axes in relation.parameters.items():
                yield vertex, name, getattr(vertex.module, name), axes

    # Orbits and costs ------------------------------------------------------------------------------------------

    @cached_property
    def orbits(self) -> tuple[Orbit, ...]:
        """All orbits, in order of their first places."""
        tensors = ((vertex, name, axes) for vertex, name, _, axes in self._tensors())
        return find_orbits(self.solver, tensors, self._propagation.relations.values())

    @cached_property
    def _costing(self) -> Costing:
        return Costing(self._source, self._propagation, self.registry, self._batch)

    @cached_property
    def _parameters(self) -> CostModel:
        return self._costing.parameters((tensor, axes) for _, _, tensor, axes in self._tensors())

    def _completed(self, counts: Mapping[int, Any]) -> dict[int, Any]:
        return {orbit.atom.id: counts.get(orbit.atom.id, orbit.n) for orbit in self.orbits}

    def cost(self, counts: Mapping[int, Any] | None = None) -> Any:
        """Return the FLOPs of evaluation for one sample where the atom of each orbit keeps ``counts[atom.id]`` slots.

        Args:
            counts: Ints, or scalar tensors, in which the result is differentiable. Orbits left out stay whole.
        """
        return self._costing.flops(self._completed(counts or {}))

    def parameters_count(self, counts: Mapping[int, Any] | None = None) -> Any:
        """Return the number of learned elements; ``counts`` as for `cost`."""
        return self._parameters(self._completed(counts or {}))

    @cached_property
    def _least(self) -> dict[int, int]:
        return {orbit.atom.id: max(1, orbit.minimum) for orbit in self.orbits}

    @cached_property
    def prunable_proportion(self) -> float:
        """Share of the FLOPs that goes when every orbit is at its minimum, 1 where it may vanish."""
        now = self.cost()
        return 1.0 - float(self.cost(self._least)) / float(now) if now else 0.0

    # The report ------------------------------------------------------------------------------------------------

    @cached_property
    def _locks(self) -> Locks:
        return Locks.of(self.solver.find, self._propagation, self._costing.flops_at(self._least))

    @property
    def locked(self) -> dict[Cause, Any]:
        """FLOPs that stay at the minimum of all orbits because something froze the channels, by what did."""
        return {cause: share.flops for cause, share in self._locks.locked.items()}

    @property
    def floor(self) -> Any:
        """FLOPs that stay at the minimum of all orbits although nothing is frozen."""
        return self._locks.floor

    def __str__(self) -> str:
        return to_text(self, self._locks)
