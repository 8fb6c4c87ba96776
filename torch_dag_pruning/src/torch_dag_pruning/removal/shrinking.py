"""Building the smaller graph, vertex by vertex."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from torch_dag_core.graph.builtin_ops import Constant, GetItem
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_core.ops.layout import Split
from torch_dag_pruning.analysis.value_axes import ValueAxes, is_constant
from torch_dag_pruning.axes import Fixed
from torch_dag_pruning.errors import RemovalError
from torch_dag_pruning.removal.emptiness import Emptiness
from torch_dag_pruning.removal.kept import Kept
from torch_dag_pruning.removal.rebuilding import Rebuilder


@dataclass
class Shrinking:
    """A copy of an analysed graph, which is reduced to the slots that a plan keeps.

    Attributes:
        dag: The copy; it is changed.
        axes: The axes of all values of the analysed graph.
        kept: The kept slots of any axis.
        emptiness: Handles vertices that become empty.
    """

    dag: DagModule
    axes: ValueAxes
    kept: Kept
    emptiness: Emptiness = field(init=False)

    def __post_init__(self) -> None:
        analysis = self.axes.analysis
        self.emptiness = Emptiness(self.dag, self.axes, self.kept, analysis.inputs, analysis.registry)

    def run(self) -> DagModule:
        """Shrink every vertex, delete the empty ones, and return the graph.

        Raises:
            RemovalError: an op cannot be made smaller. ``dag`` is then partly changed and must be discarded.
        """
        rebuilder = Rebuilder(self.kept, self.axes.analysis.registry)
        self.emptiness.find()
        self._give_private_constants()
        for vertex in self.dag.inner_vertices:
            if vertex.name not in self.emptiness.gone:
                self._shrink(vertex, rebuilder)
        self._delete()
        self.dag.verify()
        return self.dag

    def _shrink(self, vertex: InnerVertex, rebuilder: Rebuilder) -> None:
        left = self.emptiness.resolve(vertex)
        relation = self.axes.analysis.relations.get(vertex.name)
        if left is None or relation is None or is_constant(left):
            return
        operands = [self.axes.operand(left, index) for index in range(len(left.predecessors))]
        module = rebuilder.module(left.name, left.module, relation, operands)
        if isinstance(module, Split):
            module = self._without_empty_pieces(left, module)
        if module is not left.module:
            self.dag.replace_module(left, module)

    def _without_empty_pieces(self, vertex: InnerVertex, module: Split) -> Split:
        """Drop empty pieces of a split, and renumber the `GetItem` vertices that read the others."""
        empty = [self.emptiness.is_empty(piece) for piece in self.axes.outputs(vertex.name)]
        if not any(empty):
            return module
        for user, _ in vertex.uses:
            if not isinstance(user, InnerVertex) or not isinstance(user.module, GetItem):
                message = f"{user.name!r} reads all pieces of {vertex.name!r}, of which one vanishes"
                raise RemovalError(vertex.name, message)
            index = user.module.index % len(empty)
            if not empty[index]:
                self.dag.replace_module(user, GetItem(index - sum(empty[:index])).train(user.module.training))
        sizes = tuple(size for size, gone in zip(module.sizes, empty, strict=True) if not gone)
        return Split(sizes, module.dim)

    # Constants -------------------------------------------------------------------------------------------------

    def _give_private_constants(self) -> None:
        """Slice each constant for each of its readers (O14); readers with equal kept positions share a vertex."""
        for vertex in self.dag.inner_vertices:
            if isinstance(vertex.module, Constant):
                self._divide(vertex, vertex.module.value)

    def _divide(self, vertex: InnerVertex, whole: Tensor) -> None:
        parts: dict[tuple[Any, ...], InnerVertex] = {}
        for user, index in vertex.uses:
            is_output = user in self.dag.output_vertices
            axes = [Fixed(size) for size in whole.shape] if is_output else self.axes.constant(user, index)
            if self.emptiness.is_empty(axes):
                continue
            key = self.kept.fingerprint(axes)
            if key not in parts:
                parts[key] = self._part(vertex, self.kept.take(whole, axes), first=not parts)
            if parts[key] is not vertex:
                self.dag.set_predecessor(user, index, parts[key])

    def _part(self, vertex: InnerVertex, part: Tensor, *, first: bool) -> InnerVertex:
        """Return a vertex that holds a part of a constant: the vertex itself for the first part, then new ones."""
        module: Any = vertex.module
        shape = tuple(part.shape)
        fresh = type(module)(shape, part.dtype, persistent=module.persistent, value=part.clone()).train(module.training)
        if first:
            self.dag.replace_module(vertex, fresh)
            return vertex
        return self.dag.add_vertex(self.dag.unique_name(f"{vertex.name}_part"), fresh)

    # Deleting --------------------------------------------------------------------------------------------------

    def _delete(self) -> None:
        """Delete the empty vertices and those that only they read."""
        gone = self.emptiness.gone
        for output in self.dag.output_vertices:
            for predecessor in output.predecessors:
                if predecessor.name in gone:
                    message = f"nothing is left of the output {predecessor.name!r}; keep a slot of its orbit"
                    raise RemovalError(predecessor.name, message)
        if gone or self.emptiness.made:
            for vertex in reversed(self.dag.inner_vertices):
                if vertex.name in gone:
                    self.dag.remove_unused(vertex)
            self.dag.remove_dead_vertices()
