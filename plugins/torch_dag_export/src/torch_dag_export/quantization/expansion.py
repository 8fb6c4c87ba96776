"""Composite ops taken apart, so that the layers inside them can be replaced."""

from __future__ import annotations

from typing import Any

from torch_dag_core.conversion.convert import build_from_unstructured_module
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.flattening import flatten
from torch_dag_core.graph.inputs import InputSpec
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_core.plugins.loading import default_registry
from torch_dag_core.shape_run import ShapeRun
from torch_dag_export.subject import random_example


def expanded_copy(dag: DagModule) -> DagModule:
    """Return a copy without nested graphs and composite ops.

    Raises:
        InputError: there is a composite op, and the graph does not remember the sizes of its inputs.
    """
    flat = dag.flatten()
    registry = default_registry()
    composites = [vertex for vertex in flat.inner_vertices if _expand(vertex) is not None]
    if not composites:
        return flat
    inputs = [tensor.to("meta") for tensor in random_example(flat)]
    values = ShapeRun(registry).values(flat, inputs)
    expansions = {
        vertex: _traced(vertex, tuple(values[operand] for operand in vertex.predecessors)) for vertex in composites
    }
    return flatten(flat, DagModule, expansions=expansions)


def _expand(vertex: InnerVertex) -> Any:
    spec = default_registry().for_module(vertex.module)
    return None if spec is None else spec.expand


def _traced(vertex: InnerVertex, operands: tuple[Any, ...]) -> DagModule:
    traced = build_from_unstructured_module(_expand(vertex)(vertex.module), operands)
    # The operands are positional; parameters of forward with defaults would prevent that the graph is inlined.
    traced.input_spec = InputSpec()
    return traced.train(vertex.module.training)
