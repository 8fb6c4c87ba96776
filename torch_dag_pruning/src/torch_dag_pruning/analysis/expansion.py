"""Expansion of composite ops and nested graphs, so that rules see primitive ops only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.flattening import flatten
from torch_dag_core.graph.inputs import InputSpec
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_core.plugins.registry import Registry
from torch_dag_core.shape_run import ShapeRun
from torch_dag_pruning.axes.relation import Rule


def shared_clone(dag: DagModule) -> DagModule:
    """Return a copy of a graph without nested graphs that shares all parameters and buffers with it."""
    return flatten(dag, DagModule, {id(tensor): tensor for tensor in (*dag.parameters(), *dag.buffers())})


def is_plain(dag: DagModule, registry: Registry, rules: Mapping[str, Rule]) -> bool:
    """Tell whether a graph has no nested graph, and no composite op without an axis rule of its own."""
    return not any(
        isinstance(vertex.module, DagModule) or _is_composite(vertex, registry, rules) for vertex in dag.inner_vertices
    )


def _is_composite(vertex: InnerVertex, registry: Registry, rules: Mapping[str, Rule]) -> bool:
    spec = registry.for_module(vertex.module)
    return spec is not None and spec.expand is not None and spec.key not in rules


def expanded(dag: DagModule, inputs: Sequence[Tensor], registry: Registry, rules: Mapping[str, Rule]) -> DagModule:
    """Return a copy without nested graphs and composite ops that shares parameters and buffers with the graph.

    Composite ops of equal configuration on operands of equal form are traced once.
    """
    copy = shared_clone(dag)
    composites = [vertex for vertex in copy.inner_vertices if _is_composite(vertex, registry, rules)]
    if not composites:
        return copy
    values = ShapeRun(registry).values(copy, inputs)
    traced: dict[Any, DagModule] = {}
    for vertex in composites:
        operands = tuple(values[predecessor] for predecessor in vertex.predecessors)
        key = _configuration(vertex.module), tuple((o.shape, o.dtype) for o in operands)
        if key not in traced:
            traced[key] = _traced(vertex, operands, registry)
        copy.replace_module(vertex, _with_own_tensors(traced[key], vertex.module))
    return shared_clone(copy)


def _configuration(module: nn.Module) -> Any:
    """Return a key that is equal for modules with the same expansion.

    A module with buffers is its own key, because values computed from buffers become constants of its expansion.
    """
    return module if any(True for _ in module.buffers()) else (type(module), repr(module))


def _traced(vertex: InnerVertex, operands: tuple[Any, ...], registry: Registry) -> DagModule:
    spec = registry.for_module(vertex.module)
    assert spec is not None
    assert spec.expand is not None
    traced = build_from_unstructured_module(spec.expand(vertex.module), operands, registry=registry)
    # The operands are positional. Without this, parameters of forward that keep their defaults would prevent inlining.
    traced.input_spec = InputSpec()
    return traced


def _with_own_tensors(traced: DagModule, instance: nn.Module) -> DagModule:
    """Return a copy of an expansion that holds the modules and parameters of one instance."""
    nested = shared_clone(traced)
    parts = dict(instance.named_modules())
    tensors = dict(instance.named_parameters(remove_duplicate=False))
    for vertex in nested.inner_vertices:
        if vertex.name in parts:
            nested.replace_module(vertex, parts[vertex.name])
        elif vertex.name in tensors:
            vertex.module.value = tensors[vertex.name]
    return nested.train(instance.training)
