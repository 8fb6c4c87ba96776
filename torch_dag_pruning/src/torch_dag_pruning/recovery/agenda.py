"""What there is to repair in a pruned graph: layers, batch norms, and the additions that layers lead to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.interpret import live_inner_vertices
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_pruning.analysis.value_axes import ValueAxes
from torch_dag_pruning.axes import Axis
from torch_dag_pruning.errors import RecoveryError
from torch_dag_pruning.recovery.changes import changed_vertices
from torch_dag_pruning.recovery.joins import BATCH_NORMS, Join, Joins
from torch_dag_pruning.recovery.settings import RecoverySettings
from torch_dag_pruning.removal.kept import Kept
from torch_dag_pruning.statistics.contractions import Contraction, contraction_of


class Agenda:
    """What there is to repair.

    Attributes:
        layers: How each layer multiplies that is to be solved, by the name of its vertex.
        norms: Names of the batch norms whose statistics are to be set.
        joins: The addition that each layer leads to, where it is to correct the sum.
        shared: The first vertex of each layer that several vertices call.
        skipped: Why a layer whose operand changed is left as it is, by vertex.
        calls: The vertices that call each module.
        returned: Names of the vertices that the graph returns.
    """

    def __init__(self, dag: DagModule, axes: ValueAxes, kept: Kept, settings: RecoverySettings) -> None:
        """Find out.

        Raises:
            RecoveryError: the graph is not what the plan leaves.
        """
        self.registry = axes.analysis.registry
        self._axes, self._kept, self._dag = axes, kept, dag
        self._order = live_inner_vertices(dag, training=False)
        self._changed = changed_vertices(dag, axes, kept)
        self.returned = [vertex.name for vertex in dag.output_vertex(training=False).predecessors]
        self.calls: dict[nn.Module, list[InnerVertex]] = defaultdict(list)
        for vertex in self._order:
            self.calls[vertex.module].append(vertex)
        self.skipped: dict[str, str] = {}
        self.layers = {} if settings.method == "batch_norm" else self._find_layers()
        self.norms = set() if settings.batch_norm == "keep" else self._find_norms()
        self.joins = self._find_joins() if settings.target == "residual" else {}
        firsts = {self.calls[self._module(name)][0].name for name in self.layers}
        self.shared = [vertex for vertex in self._order if vertex.name in firsts and len(self.calls[vertex.module]) > 1]

    # Finding ---------------------------------------------------------------------------------------------------

    def _find_layers(self) -> dict[str, Contraction]:
        tied = self._tied()
        found: dict[str, Contraction] = {}
        for vertex in self._order:
            contraction = contraction_of(vertex, self.registry)
            if contraction is None or not self._is_changed(vertex):
                continue
            reason = self._reason(vertex, tied)
            if reason:
                self.skipped[vertex.name] = reason
            else:
                found[vertex.name] = contraction
        return self._without_half_shared(found)

    def _is_changed(self, vertex: InnerVertex) -> bool:
        """Tell whether the result of a vertex differs from that of a vertex with the same op in the reference."""
        reference = self._axes.analysis.dag
        twin = reference.get_vertex_by_name(vertex.name) if vertex.name in reference else None
        is_same_op = isinstance(twin, InnerVertex) and type(twin.module) is type(vertex.module)
        return is_same_op and vertex.name in self._changed

    def _reason(self, vertex: InnerVertex, tied: dict[nn.Module, list[str]]) -> str:
        if vertex.module in tied:
            others = " and ".join(map(repr, tied[vertex.module]))
            return f"its weights are tied to those of {others}, which would change too"
        return ""

    def _tied(self) -> dict[nn.Module, list[str]]:
        """Return the names of vertices with other modules that hold a parameter of a module as well."""
        holders: dict[Tensor, list[InnerVertex]] = defaultdict(list)
        for calls in self.calls.values():
            for parameter in calls[0].module.parameters():
                holders[parameter].append(calls[0])
        tied: dict[nn.Module, list[str]] = {}
        for vertices in holders.values():
            for vertex in vertices if len(vertices) > 1 else ():
                tied[vertex.module] = [other.name for other in vertices if other is not vertex]
        return tied

    def _without_half_shared(self, found: dict[str, Contraction]) -> dict[str, Contraction]:
        """Drop layers of which some calls cannot be solved."""
        return {
            name: each for name, each in found.items() if all(c.name in found for c in self.calls[self._module(name)])
        }

    def _find_norms(self) -> set[str]:
        return {vertex.name for vertex in self._order if self._is_changed(vertex) and self._is_norm(vertex)}

    def _is_norm(self, vertex: InnerVertex) -> bool:
        spec = self.registry.for_module(vertex.module)
        module: Any = vertex.module
        is_norm = spec is not None and spec.key in BATCH_NORMS and module.running_mean is not None
        return is_norm and len(self.calls[module]) == 1

    def _find_joins(self) -> dict[str, Join]:
        joins = Joins(self._dag, self.registry)
        found = {name: joins.behind(self._vertex(name)) for name in self.layers}
        reference = self._axes.analysis.dag
        return {name: join for name, join in found.items() if join is not None and join.other in reference}

    def _vertex(self, name: str) -> InnerVertex:
        vertex = self._dag.get_vertex_by_name(name)
        assert isinstance(vertex, InnerVertex)
        return vertex

    def _module(self, name: str) -> nn.Module:
        return self._vertex(name).module

    # Asking ----------------------------------------------------------------------------------------------------

    def first_call(self, vertex: InnerVertex) -> str:
        """Return the name of the first vertex that calls the module of a vertex."""
        return self.calls[vertex.module][0].name

    def settle_shared(self) -> None:
        """Take layers that several vertices call off the list."""
        for first in self.shared:
            for vertex in self.calls[first.module]:
                del self.layers[vertex.name]
        self.shared = []

    @property
    def vertices(self) -> int:
        """How many vertices evaluation runs."""
        return len(self._order)

    @property
    def others(self) -> set[str]:
        """Names of the vertices that give the other operands of the additions."""
        return {join.other for name, join in self.joins.items() if name in self.layers}

    @property
    def unneeded_after(self) -> dict[str, list[str]]:
        """By the name of an addition: the vertices whose values no layer needs once it is computed."""
        position = {vertex.name: place for place, vertex in enumerate(self._order)}
        last: dict[str, str] = {}
        for name, join in self.joins.items():
            if name in self.layers and position[join.vertex] >= position.get(last.get(join.other, ""), -1):
                last[join.other] = join.vertex
        found: dict[str, list[str]] = defaultdict(list)
        for other, addition in last.items():
            found[addition].append(other)
        return found

    def norm_behind(self, vertex: InnerVertex) -> str | None:
        """Return the name of the batch norm that alone reads a vertex."""
        names = [user.name for user, _ in vertex.uses if isinstance(user, InnerVertex)]
        return names[0] if len(vertex.uses) == len(names) == 1 and names[0] in self.norms else None

    def taken(self, name: str, value: Tensor) -> Tensor:
        """Return the kept part of a value of the reference.

        Raises:
            RecoveryError: slots are removed along a dimension that also holds the batch, of another size now.
        """
        axes: Sequence[Axis] = self._axes.outputs(name)[0]
        for axis, size in zip(axes, value.shape, strict=True):
            if axis.n != size and self._kept.indices(axis) is not None:
                message = (
                    f"vertex {name!r} has slots removed along a dimension that holds the batch as well; pass batches "
                    f"of the analysed size ({axis.n} there, got {size})"
                )
                raise RecoveryError(message)
        return self._kept.take(value, axes)
