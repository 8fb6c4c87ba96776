"""What an analysed graph costs as a function of what is kept of its orbits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from torch_dag_core.analysis.costs import call_flops
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.interpret import live_inner_vertices
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_core.plugins.registry import Registry
from torch_dag_pruning.analysis.cost import CostModel, Polynomial, Variables, polynomial, total
from torch_dag_pruning.analysis.propagation import Propagation, flat
from torch_dag_pruning.axes import Fixed
from torch_dag_pruning.axes.relation import Axes, Relation


@dataclass
class Costing:
    """FLOPs and parameters of one graph, as polynomials.

    Attributes:
        batch: By how many samples the FLOPs of what depends on the inputs are divided.
    """

    dag: DagModule
    propagation: Propagation
    registry: Registry
    batch: int

    @cached_property
    def variables(self) -> Variables:
        """The axes that the FLOPs depend on."""
        return Variables(self.propagation.store.solver.find)

    @cached_property
    def flops_by_vertex(self) -> dict[str, Polynomial]:
        """FLOPs of each vertex that evaluation needs, for one sample."""
        return {vertex.name: self._flops(vertex) for vertex in live_inner_vertices(self.dag, training=False)}

    @cached_property
    def flops(self) -> CostModel:
        """FLOPs of the graph for one sample."""
        return CostModel(total(self.flops_by_vertex.values()), self.variables.axes)

    def flops_at(self, counts: Mapping[int, Any]) -> dict[str, Any]:
        """Return the FLOPs of each vertex where each atom keeps ``counts[atom.id]`` slots."""
        flops = self.flops_by_vertex
        return {name: CostModel(each, self.variables.axes)(counts) for name, each in flops.items()}

    def _flops(self, vertex: InnerVertex) -> Polynomial:
        spec = self.registry.for_module(vertex.module)
        relation = self.propagation.relations.get(vertex.name)
        if relation is None:
            return polynomial(0)
        operands = [axes for operand in self.propagation.operands[vertex.name] for axes in flat(operand)]
        sizes = self.variables.sizes
        own = {name: sizes(axes) for name, axes in _module_axes(vertex.module, relation)}
        read, made = ([sizes(axes) for axes in tensors] for tensors in (operands, relation.outputs))
        flops = polynomial(call_flops(spec, vertex.module, read, made, own))
        return self._per_sample(flops) if self.propagation.depends_on_input(vertex) else flops

    def _per_sample(self, flops: Polynomial) -> Polynomial:
        """Divide by the batch, exactly where that is possible."""
        batch = self.batch
        return Polynomial({m: c // batch if c % batch == 0 else c / batch for m, c in flops.terms.items()})

    def parameters(self, described: Iterable[tuple[Tensor, Axes]]) -> CostModel:
        """Return the number of learned elements, tied ones once; tensors without axes are whole."""
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
