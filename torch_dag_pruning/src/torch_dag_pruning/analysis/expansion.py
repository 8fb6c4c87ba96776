"""Composite ops and nested graphs taken apart, so that rules see ops of the vocabulary only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from torch_dag_core.analysis.shape_run import ShapeRun
from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.flattening import flatten
from torch_dag_core.graph.inputs import InputSpec
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_core.plugins.registry import Registry
from torch_dag_pruning.axes.relation import Rule


def shared_clone(dag: DagModule) -> DagModule:
    """Return a flat copy of a graph that shares all tensors with it."""
    return flatten(dag, DagModule, {id(tensor): tensor for tensor in (*dag.parameters(), *dag.buffers())})


def is_plain(dag: DagModule, registry: Registry, rules: Mapping[str, Rule]) -> bool:
    """Tell whether nothing in a graph has to be taken apart."""
    return not any(
        isinstance(vertex.module, DagModule) or _is_composite(vertex, registry, rules) for vertex in dag.inner_vertices
    )


def _is_composite(vertex: InnerVertex, registry: Registry, rules: Mapping[str, Rule]) -> bool:
    spec = registry.for_module(vertex.module)
    return spec is not None and spec.expand is not None and spec.key not in rules


def expanded(dag: DagModule, inputs: Sequence[Tensor], registry: Registry, rules: Mapping[str, Rule]) -> DagModule:
    """Return a flat copy without composite ops; it shares tensors with the graph."""
    flat = shared_clone(dag)
    composites = [vertex for vertex in flat.inner_vertices if _is_composite(vertex, registry, rules)]
    if not composites:
        return flat
    values = ShapeRun(registry).values(flat, inputs)
    traced: dict[Any, DagModule] = {}
    for vertex in composites:
        operands = tuple(values[predecessor] for predecessor in vertex.predecessors)
        key = _configuration(vertex.module), tuple((o.shape, o.dtype) for o in operands)
        if key not in traced:
            traced[key] = _traced(vertex, operands, registry)
        flat.replace_module(vertex, _of_instance(traced[key], vertex.module))
    return shared_clone(flat)


def _configuration(module: nn.Module) -> Any:
    """Return what two modules of one graph have in common; values computed from buffers are each one's own."""
    return module if any(True for _ in module.buffers()) else (type(module), repr(module))


def _traced(vertex: InnerVertex, operands: tuple[Any, ...], registry: Registry) -> DagModule:
    spec = registry.for_module(vertex.module)
    assert spec is not None
    assert spec.expand is not None
    traced = build_from_unstructured_module(spec.expand(vertex.module), operands, registry=registry)
    # Operands are positional here; parameters left at their defaults must not keep the graph from being inlined.
    traced.input_spec = InputSpec()
    return traced


def _of_instance(traced: DagModule, instance: nn.Module) -> DagModule:
    """Return the graph of one instance: that of another of the same configuration, with this one's modules."""
    nested = shared_clone(traced)
    parts = dict(instance.named_modules())
    tensors = dict(instance.named_parameters(remove_duplicate=False))
    for vertex in nested.inner_vertices:
        if vertex.name in parts:
            nested.replace_module(vertex, parts[vertex.name])
        elif vertex.name in tensors:
            vertex.module.value = tensors[vertex.name]
    return nested.train(instance.training)
