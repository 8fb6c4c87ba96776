"""Expansion of composite ops and nested graphs, so that rules see primitive ops only."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.graph.builtin_ops import FreeParameter
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.flattening import flatten
from torch_dag_core.graph.inputs import InputSpec
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_core.plugins.registry import OpSpec, Registry
from torch_dag_core.shape_run import ShapeRun
from torch_dag_pruning.analysis.example_sizes import sized_runs
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


def expanded(dag: DagModule, inputs: Sequence[Tensor], run: ShapeRun, rules: Mapping[str, Rule]) -> DagModule:
    """Return a copy without nested graphs and composite ops, for reading only: it shares modules with the graph."""
    flat = shared_clone(dag) if any(isinstance(vertex.module, DagModule) for vertex in dag.inner_vertices) else dag
    composites = [vertex for vertex in flat.inner_vertices if _is_composite(vertex, run.registry, rules)]
    if not composites:
        return flat
    _, values = next(sized_runs(flat, inputs, run))
    expansions = {
        vertex: _expansion(vertex.module, tuple(values[operand] for operand in vertex.predecessors), run.registry)
        for vertex in composites
    }
    graphs = (flat, *expansions.values())
    modules = {id(vertex.module): vertex.module for graph in graphs for vertex in graph.inner_vertices}
    plain = flatten(flat, DagModule, modules, expansions)
    for vertex, expansion in expansions.items():
        _use_own_tensors(plain, vertex, expansion)
    return plain


_MOST_TRACED: Final = 64
_TRACED: Final[dict[Any, DagModule]] = {}
"""The latest expansions, without data, by the form of the composite op."""


def _expansion(module: nn.Module, operands: tuple[Any, ...], registry: Registry) -> DagModule:
    """Return the expansion of a composite op as a graph.

    Ops of equal configuration on operands of equal form are traced once. One without a codec has a configuration that
    is unknown, and values that are computed from buffers become constants, so these are traced each time.
    """
    spec = registry.for_module(module)
    assert spec is not None
    if spec.codec is None or any(True for _ in module.buffers()):
        return _traced(spec, module, operands, registry)
    forms = tuple((operand.shape, operand.dtype) for operand in operands)
    key = spec.target, spec.expand, repr(spec.codec.config(module)), _forms(module), module.training, forms
    if key not in _TRACED:
        blank = {id(tensor): torch.empty_like(tensor, device="meta") for tensor in module.parameters()}
        found = _traced(spec, copy.deepcopy(module, blank), operands, registry)
        while len(_TRACED) >= _MOST_TRACED:
            del _TRACED[next(iter(_TRACED))]
        _TRACED[key] = found
    return _TRACED[key]


def _forms(module: nn.Module) -> Any:
    return tuple((name, tensor.shape, tensor.dtype) for name, tensor in module.named_parameters())


def _traced(spec: OpSpec, module: nn.Module, operands: tuple[Any, ...], registry: Registry) -> DagModule:
    assert spec.expand is not None
    traced = build_from_unstructured_module(spec.expand(module), operands, registry=registry)
    # The operands are positional. Without this, parameters of forward that keep their defaults would prevent inlining.
    traced.input_spec = InputSpec()
    return traced.train(module.training)


def _use_own_tensors(plain: DagModule, composite: InnerVertex, expansion: DagModule) -> None:
    """Let the vertices of an expansion hold the modules and parameters of the instance that they came from."""
    parts = dict(composite.module.named_modules())
    tensors = dict(composite.module.named_parameters(remove_duplicate=False))
    for inner in expansion.inner_vertices:
        if inner.name in parts:
            module = parts[inner.name]
        elif inner.name in tensors:
            tensor = tensors[inner.name]
            module = FreeParameter(tuple(tensor.shape), tensor.dtype, value=tensor)
        else:
            continue
        vertex = plain.get_vertex_by_name(f"{composite.name}.{inner.name}")
        assert isinstance(vertex, InnerVertex)
        plain.replace_module(vertex, module)
