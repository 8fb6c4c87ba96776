"""One run of the axis rules over all vertices of a graph, in topological order."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from torch_dag_core.graph.builtin_ops import Constant, GetItem
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.vertex import InnerVertex, OutputVertex, UserVertex, Vertex
from torch_dag_core.plugins.registry import Registry
from torch_dag_pruning.axes import Cause, Fixed
from torch_dag_pruning.axes.relation import Axes, AxisStore, Context, Relation, Rule
from torch_dag_pruning.errors import AnalysisError
from torch_dag_pruning.rules import core_keys
from torch_dag_pruning.rules.touching import NO_RULE, all_frozen


@dataclass
class Propagation:
    """One run of the rules over a graph whose values have known sizes.

    A constant has no axes of its own: each use is treated as a private copy, so its rule is called once for each use.

    Attributes:
        relations: The relation of each vertex, by name; for a constant, that of its first use.
        operands: The axes of each operand of each vertex, by name.
        outputs: The axes of each output tensor of each vertex, by name.
    """

    dag: DagModule
    registry: Registry
    rules: Mapping[str, Rule]
    store: AxisStore
    free_outputs: Collection[str]
    values: Mapping[Vertex, Any]
    relations: dict[str, Relation] = field(default_factory=dict)
    operands: dict[str, list[Any]] = field(default_factory=dict)
    outputs: dict[str, list[Axes]] = field(default_factory=dict)
    _axes: dict[Vertex, Any] = field(default_factory=dict)
    _cleared: dict[Vertex, tuple[int, ...]] = field(default_factory=dict)
    _is_static: dict[Vertex, bool] = field(default_factory=dict)
    _is_learned: dict[Vertex, bool] = field(default_factory=dict)

    def run(self) -> Propagation:
        """Call the rule of every vertex and freeze the outputs; the solver then holds all equalities."""
        for vertex in self.dag.input_vertices:
            self._axes[vertex] = _input_axes(vertex.name, self.values[vertex].shape)
            self.outputs[vertex.name] = [self._axes[vertex]]
            self._is_static[vertex] = self._is_learned[vertex] = False
        for inner in self.dag.inner_vertices:
            self._visit(inner)
        for output in self.dag.output_vertices:
            self._finish(output)
        return self

    def depends_on_input(self, vertex: Vertex) -> bool:
        """Tell whether the value of a vertex depends on the graph's inputs."""
        return not self._is_static[vertex]

    # Vertices --------------------------------------------------------------------------------------------------

    def _visit(self, vertex: InnerVertex) -> None:
        self._is_static[vertex] = all(self._is_static[p] for p in vertex.predecessors)
        own = any(tensor is not None for part in vertex.module.modules() for tensor in part._parameters.values())
        learned = own or any(self._is_learned[p] for p in vertex.predecessors)
        self._is_learned[vertex] = learned and self._is_static[vertex]
        if isinstance(vertex.module, Constant):
            return  # its relation is made where it is read, once for each use
        operands = [self._operand(vertex, index) for index in range(len(vertex.predecessors))]
        self.operands[vertex.name] = operands
        relation = self._relation(vertex, vertex.name, operands)
        self.relations[vertex.name] = relation
        self.outputs[vertex.name] = relation.outputs
        self._axes[vertex] = _nested(self.values[vertex], iter(relation.outputs))

    def _operand(self, vertex: UserVertex, index: int) -> Any:
        predecessor = vertex.predecessors[index]
        if not isinstance(predecessor, InnerVertex) or not isinstance(predecessor.module, Constant):
            return self._axes[predecessor]
        relation = self._relation(predecessor, f"{predecessor.name}@{vertex.name}:{index}", [])
        if predecessor.name not in self.relations:
            self.relations[predecessor.name] = relation
            self.outputs[predecessor.name] = relation.outputs
            self.operands[predecessor.name] = []
        return relation.outputs[0]

    def _relation(self, vertex: InnerVertex, name: str, operands: list[Any]) -> Relation:
        """Call the rule of a vertex, and check its result; freeze everything if there is no rule, or it does not apply.

        A rule of the core that fails does not know this form of its op. That of a plugin is wrong, which its author
        has to learn.
        """
        ctx = self._context(vertex, name, operands)
        rule = self.rules.get(ctx.op)
        try:
            relation = _checked(ctx, rule) if rule else all_frozen(ctx, NO_RULE)
        except AnalysisError as error:
            if ctx.op not in core_keys():
                raise
            relation = all_frozen(ctx, str(error.__cause__ or error))
        self._freeze_undescribed(ctx, relation)
        self._cleared[vertex] = relation.cleared
        return _without_needless_masks(ctx, relation)

    def _context(self, vertex: InnerVertex, name: str, operands: list[Any]) -> Context:
        values = [self.values[predecessor] for predecessor in vertex.predecessors]
        spec = self.registry.for_module(vertex.module)
        return Context(
            module=vertex.module,
            inputs=operands,
            shapes=[_map(value, lambda tensor: tuple(tensor.shape)) for value in values],
            outputs=[tuple(tensor.shape) for tensor in nested_leaves(self.values[vertex])],
            solver=self.store.solver,
            vertex=name,
            op=type(vertex.module).__name__ if spec is None else spec.key,
            dtypes=[getattr(value, "dtype", None) for value in values],
            learned=[self._is_learned[predecessor] for predecessor in vertex.predecessors],
            reads=_reads(vertex),
            cleared=[self._cleared.get(predecessor, ()) for predecessor in vertex.predecessors],
            store=self.store,
        )

    def _freeze_undescribed(self, ctx: Context, relation: Relation) -> None:
        """Freeze the tensors of the module that its rule does not mention."""
        for name, tensor in _tensors(ctx.module):
            if name not in relation.parameters and tensor is not None and tensor.dim():
                ctx.freeze(self.store.of_tensor(tensor, f"{ctx.vertex}.{name}"), f"no rule describes its {name!r}")

    def _finish(self, output: OutputVertex) -> None:
        for index, vertex in enumerate(output.predecessors):
            axes = self._operand(output, index)
            if vertex.name not in self.free_outputs:
                cause = Cause(vertex.name, "output", f"output {vertex.name}")
                for axis in (axis for tensor in nested_leaves(axes) for axis in tensor):
                    self.store.solver.freeze(axis, cause)


def _input_axes(name: str, shape: Sequence[int]) -> Axes:
    return [Fixed(n, Cause(name, "input", f"dimension {dim} of input {name}")) for dim, n in enumerate(shape)]


def _checked(ctx: Context, rule: Rule) -> Relation:
    """Return what a rule says.

    Raises:
        AnalysisError: the rule fails, or its axes do not have the sizes of the vertex's outputs.
    """
    try:
        relation = rule(ctx)
    except Exception as error:
        message = f"the axis rule of {ctx.op!r} failed at vertex {ctx.vertex!r}: {error}"
        raise AnalysisError(message) from error
    said = [tuple(axis.n for axis in axes) for axes in relation.outputs]
    if said != list(ctx.outputs):
        message = f"the axis rule of {ctx.op!r} gives {ctx.vertex!r} the sizes {said}, it has {list(ctx.outputs)}"
        raise AnalysisError(message)
    return relation


def _tensors(module: nn.Module) -> Iterable[tuple[str, Tensor | None]]:
    if module._modules:
        return (*module.named_parameters(), *module.named_buffers())
    return (*module._parameters.items(), *module._buffers.items())


def _without_needless_masks(ctx: Context, relation: Relation) -> Relation:
    """Drop the sinks over dimensions in which the operand has exact zeros for removed slots already."""
    needed = tuple(sink for sink in relation.sinks if not set(sink.dims) <= set(ctx.cleared[sink.operand]))
    return relation if len(needed) == len(relation.sinks) else replace(relation, sinks=needed)


def _reads(vertex: InnerVertex) -> frozenset[int] | None:
    """Return which outputs of a vertex are read; None if a reader takes the whole tuple."""
    users = [getattr(user, "module", None) for user, _ in vertex.uses]
    if not all(isinstance(module, GetItem) for module in users):
        return None
    return frozenset(module.index for module in users)  # type: ignore[union-attr]


def nested_leaves(value: Any) -> list[Any]:
    """Return the leaves of nested tuples, in order. Anything but a tuple is a leaf: a tensor, or a list of axes."""
    found: list[Any] = []
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, tuple):
            stack.extend(reversed(item))
        else:
            found.append(item)
    return found


def _map(value: Any, leaf: Any) -> Any:
    return tuple(_map(item, leaf) for item in value) if isinstance(value, tuple) else leaf(value)


def _nested(value: Any, axes: Any) -> Any:
    return _map(value, lambda _: next(axes))
