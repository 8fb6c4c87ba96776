"""Calling a graph with one tensor for each of its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from torch_dag_core.graph.structure import unpack

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule


def call_arguments(dag: DagModule, tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """Return positional arguments of a graph that hold these tensors, one for each input vertex."""
    parameters = dag.input_spec.for_inputs(len(tensors)).parameters
    return tuple(unpack(parameter.structure, list(tensors)) for parameter in parameters)
