"""FLOPs and parameters of an analysed graph as functions of the number of slots that its orbits keep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from torch_dag_core.analysis.call_cost import call_flops
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.interpret import live_inner_vertices
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_core.plugins.registry import Registry
from torch_dag_pruning.analysis.polynomials import CostModel, Polynomial, Variables, polynomial, total
from torch_dag_pruning.analysis.propagation import Propagation, nested_leaves
from torch_dag_pruning.axes import Fixed
from torch_dag_pruning.axes.relation import Axes, Relation


@dataclass
class GraphCost:
    """FLOPs and parameters of one graph, as polynomials in the sizes of its axes.

    Attributes:
        batch: Number of samples in the analysed batch. The FLOPs of vertices that depend on the inputs are divided by
            it, so that all FLOPs are those of one sample.
    """

    dag: DagModule
    propagation: Propagation
    registry: Registry
    batch: int

    @cached_property
    def variables(self) -> Variables:
        """The axes that the FLOPs depend on, filled while the polynomials are built."""
        return Variables(self.propagation.store.solver.find)

    @cached_property
    def flops_by_vertex(self) -> dict[str, Polynomial]:
        """FLOPs for one sample of each vertex that runs in evaluation mode."""
        return {vertex.name: self._flops(vertex) for vertex in live_inner_vertices(self.dag, training=False)}

    @cached_property
    def flops(self) -> CostModel:
        """FLOPs of the whole graph for one sample."""
        return CostModel(total(self.flops_by_vertex.values()), self.variables.axes)

    def flops_at(self, counts: Mapping[int, Any]) -> dict[str, Any]:
        """Return the FLOPs of each vertex, by name, when each atom keeps ``counts[atom.id]`` slots."""
        flops = self.flops_by_vertex
        return {name: CostModel(each, self.variables.axes)(counts) for name, each in flops.items()}

    def _flops(self, vertex: InnerVertex) -> Polynomial:
        spec = self.registry.for_module(vertex.module)
        relation = self.propagation.relations.get(vertex.name)
        if relation is None:
            return polynomial(0)
        operands = [axes for operand in self.propagation.operands[vertex.name] for axes in nested_leaves(operand)]
        sizes = self.variables.sizes
        own = {name: sizes(axes) for name, axes in _module_axes(vertex.module, relation)}
        read, made = ([sizes(axes) for axes in tensors] for tensors in (operands, relation.outputs))
        flops = polynomial(call_flops(spec, vertex.module, read, made, own))
        return self._per_sample(flops) if self.propagation.depends_on_input(vertex) else flops

    def _per_sample(self, flops: Polynomial) -> Polynomial:
        """Divide by the batch size; coefficients stay ints where the division is exact."""
        batch = self.batch
        return Polynomial({m: c // batch if c % batch == 0 else c / batch for m, c in flops.terms.items()})

    def parameters(self, described: Iterable[tuple[Tensor, Axes]]) -> CostModel:
        """Return the number of parameter elements; shared tensors count once.

        Args:
            described: Tensors with their axes. Parameters that are not among them count in full.
        """
        axes = {id(tensor): own for tensor, own in described}
        sizes = Variables(self.propagation.store.solver.find)
        counted = [_volume(sizes.sizes(axes.get(id(p)) or _whole(p))) for p in self.dag.parameters()]
        return CostModel(total(counted), sizes.axes)


def _module_axes(module: nn.Module, relation: Relation) -> Iterator[tuple[str, Axes]]:
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        yield name, relation.parameters.get(name) or _whole(tensor)


def _whole(tensor: Tensor) -> Axes:
    return [Fixed(n) for n in tensor.shape]


def _volume(sizes: list[Any]) -> Polynomial:
    result = polynomial(1)
    for each in sizes:
        result = result * each
    return result
