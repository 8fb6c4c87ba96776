"""What can be pruned in a graph, what cannot and why, and what it would save."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from torch_dag_core.dag import DagModule
from torch_dag_core.ops.flops import per_output
from torch_dag_core.ops.tensors import Constant, TensorHolder
from torch_dag_core.plugin_code import blaming
from torch_dag_core.plugins import add_hookspecs, by_key, default_registry
from torch_dag_core.registry import Registry
from torch_dag_core.vertex import InnerVertex
from torch_dag_pruning import hookspecs
from torch_dag_pruning.axes import Atom, Axis, AxisSolver, Cause, Fixed, atoms
from torch_dag_pruning.axes.expression import factors_of
from torch_dag_pruning.cost import CostModel, Polynomial, Variables, polynomial, total
from torch_dag_pruning.errors import AnalysisError
from torch_dag_pruning.expansion import expanded, is_plain, shared_clone
from torch_dag_pruning.propagation import Propagation, flat
from torch_dag_pruning.relation import Axes, AxisRule, AxisStore, Context, Relation, Rule, rules_by_key
from torch_dag_pruning.report import Locks, to_text
from torch_dag_pruning.resolution import Resolution, leaves
from torch_dag_pruning.rules import core_rules
from torch_dag_pruning.shapes import ShapeRun, batch_of, blank_inputs, filled, hints


@dataclass(frozen=True)
class Place:
    """One dimension of one learned tensor or buffer."""

    vertex: str
    tensor: str
    dim: int

    def __str__(self) -> str:
        return f"{self.vertex}.{self.tensor}:{self.dim}"


@dataclass(frozen=True)
class Orbit:
    """Slots that are kept or removed one by one, everywhere at once.

    Attributes:
        key: Stable name: the first place in vertex order, and there the factor, such as
            ``blocks.0.attn.qkv.weight:0/1``.
        atom: The atom that stands for the slots in axis expressions.
        minimum: How many slots must stay; 0 where the whole orbit may go.
        places: Where the slots occur in learned tensors and buffers.
    """

    key: str
    atom: Atom
    minimum: int
    places: tuple[Place, ...]

    @property
    def n(self) -> int:
        """Number of slots."""
        return self.atom.n

    @property
    def name(self) -> str:
        """The vertex of the first place."""
        return self.places[0].vertex


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
    """
    registry = registry or default_registry()
    rules = axis_rules()
    _refuse_unknown(dag, free_outputs)
    example = blank_inputs(dag, example_inputs)
    plain = is_plain(dag, registry, rules)
    graph = dag if plain else expanded(dag, example, registry, rules)
    store = AxisStore()
    sizes = hints(graph, example)
    runs = ShapeRun(graph, registry)
    propagations = [
        Propagation(graph, registry, rules, store, free_outputs, dict(runs.run(inputs))).run() for inputs in sizes
    ]
    _freeze_what_masks_cannot_follow(store.solver, propagations)
    _freeze_what_nothing_makes(store.solver, propagations[0])
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
        with blaming(owner, f"the axis rule of {key!r}"):
            return rule(ctx)

    return call


def _refuse_unknown(dag: DagModule, free_outputs: Collection[str]) -> None:
    names = {vertex.name for output in dag.output_vertices for vertex in output.predecessors}
    unknown = sorted(set(free_outputs) - names)
    if unknown:
        message = f"the graph returns no vertex {unknown[0]!r}; free_outputs may name {', '.join(sorted(names))}"
        raise AnalysisError(message)


def _freeze_what_masks_cannot_follow(solver: AxisSolver, propagations: Sequence[Propagation]) -> None:
    """Freeze slots mixed with a free size other than as its rows: a mask over them fits one size of input only."""
    for name, relation in propagations[0].relations.items():
        for other in propagations[1:]:
            masked = [(axis, False) for sink in relation.sinks for axis in sink.axes]
            masked += [(axis, True) for axis in relation.statistics]
            there = [axis for sink in other.relations[name].sinks for axis in sink.axes]
            there += other.relations[name].statistics
            for (axis, by_rows), resized in zip(masked, there, strict=True):
                if not _fits(solver.find(axis), solver.find(resized), by_rows=by_rows):
                    solver.freeze(axis, Cause(name, "mask", "slots are mixed with a size that follows the input's"))


def _fits(axis: Axis, resized: Axis, *, by_rows: bool) -> bool:
    if axis == resized or not atoms(axis):
        return True
    return by_rows and _row(axis) == _row(resized)


def _row(axis: Axis) -> tuple[Axis, ...]:
    """Return the factors behind an outermost factor that stays."""
    factors = factors_of(axis)
    return factors[1:] if isinstance(factors[0], Fixed) else factors


def _freeze_what_nothing_makes(solver: AxisSolver, propagation: Propagation) -> None:
    """Freeze atoms that are no out axis of a learned contraction: register tokens, constants of positions."""
    relations = propagation.relations.values()
    learned = (axis for relation in relations for axis in relation.learned)
    owned = (axis for relation in relations for axes in relation.parameters.values() for axis in axes)
    made, placed = ({atom.id for axis in axes for atom in atoms(solver.find(axis))} for axes in (learned, owned))
    for atom in solver.atoms():
        if atom.id not in made & placed:
            solver.freeze(atom, Cause(atom.name, "no op", "no learned op makes these slots"))


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

    # Orbits ----------------------------------------------------------------------------------------------------

    @cached_property
    def orbits(self) -> tuple[Orbit, ...]:
        """All orbits, in order of their first places."""
        places: dict[Atom, list[Place]] = {}
        keys: dict[Atom, str] = {}
        for vertex, name, _, axes in self._tensors():
            for dim, axis in enumerate(axes):
                for position, atom in leaves(self.solver.find(axis)):
                    places.setdefault(atom, []).append(Place(vertex.name, name, dim))
                    keys.setdefault(atom, _key(vertex, name, dim, position))
        least = self._minimums()
        return tuple(
            Orbit(keys[atom], atom, least.get(atom.id, 0), tuple(dict.fromkeys(where)))
            for atom, where in places.items()
        )

    def _minimums(self) -> dict[int, int]:
        """Return the atoms that need slots; of several in one axis the last one provides them."""
        least: dict[int, int] = {}
        for relation in self._propagation.relations.values():
            for axis, count in relation.minimum:
                inside = atoms(self.solver.find(axis))
                if inside:
                    least[inside[-1].id] = max(count, least.get(inside[-1].id, 0))
                    least.update({atom.id: max(1, least.get(atom.id, 0)) for atom in inside})
        return least

    # Cost ------------------------------------------------------------------------------------------------------

    @cached_property
    def _variables(self) -> Variables:
        return Variables(self.solver.find)

    @cached_property
    def flops_by_vertex(self) -> dict[str, Polynomial]:
        """FLOPs of each vertex for one sample, as polynomials in the axes' sizes."""
        return {vertex.name: self._flops(vertex) for vertex in self._source.inner_vertices}

    def _flops(self, vertex: InnerVertex) -> Polynomial:
        spec = self.registry.for_module(vertex.module)
        rule = per_output if spec is None or spec.flops is None else spec.flops
        relation = self._propagation.relations.get(vertex.name)
        if relation is None:
            return polynomial(0)
        operands = [axes for operand in self._propagation.operands[vertex.name] for axes in flat(operand)]
        sizes = self._variables.sizes
        own = {name: sizes(axes) for name, axes in self._module_axes(vertex, relation).items()}
        flops = polynomial(rule(vertex.module, [sizes(o) for o in operands], [sizes(o) for o in relation.outputs], own))
        return self._per_sample(flops) if self._propagation.depends_on_input(vertex) else flops

    def _module_axes(self, vertex: InnerVertex, relation: Relation) -> dict[str, Axes]:
        found: dict[str, Axes] = {}
        for name, tensor in _own_tensors(vertex.module):
            found[name] = relation.parameters.get(name) or [Fixed(n) for n in tensor.shape]
        return found

    def _per_sample(self, flops: Polynomial) -> Polynomial:
        """Divide by the batch, exactly where that is possible."""
        batch = self._batch
        return Polynomial({m: c // batch if c % batch == 0 else c / batch for m, c in flops.terms.items()})

    @cached_property
    def _cost(self) -> CostModel:
        return CostModel(total(self.flops_by_vertex.values()), self._variables.axes)

    @cached_property
    def _parameters(self) -> CostModel:
        """Sum the sizes of all learned tensors, tied ones once."""
        described = {id(tensor): axes for _, _, tensor, axes in self._tensors()}
        sizes = Variables(self.solver.find)
        counted = [
            _volume(sizes.sizes(described.get(id(p), [Fixed(n) for n in p.shape]))) for p in self._source.parameters()
        ]
        return CostModel(total(counted), sizes.axes)

    def _completed(self, counts: Mapping[int, Any]) -> dict[int, Any]:
        return {orbit.atom.id: counts.get(orbit.atom.id, orbit.n) for orbit in self.orbits}

    def cost(self, counts: Mapping[int, Any] | None = None) -> Any:
        """Return the FLOPs for one sample where the atom of each orbit keeps ``counts[atom.id]`` slots.

        Args:
            counts: Ints, or scalar tensors, in which the result is differentiable. Orbits left out stay whole.
        """
        return self._cost(self._completed(counts or {}))

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
        flops = self.flops_by_vertex
        costs = {name: CostModel(each, self._variables.axes)(self._least) for name, each in flops.items()}
        return Locks.of(self.solver.find, self._propagation, costs)

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


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Any]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _volume(sizes: list[Any]) -> Polynomial:
    result = polynomial(1)
    for each in sizes:
        result = result * each
    return result


def _key(vertex: InnerVertex, name: str, dim: int, position: int | None) -> str:
    tensor = vertex.name if isinstance(vertex.module, TensorHolder) else f"{vertex.name}.{name}"
    return f"{tensor}:{dim}" if position is None else f"{tensor}:{dim}/{position}"
