"""Calling a graph with one tensor for each of its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torch_dag_core.analysis.random_inputs import random_input
from torch_dag_core.errors import InputError
from torch_dag_core.graph.structure import unpack

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule


def call_arguments(dag: DagModule, tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """Return positional arguments of a graph that hold these tensors, one for each input vertex."""
    parameters = dag.input_spec.for_inputs(len(tensors)).parameters
    return tuple(unpack(parameter.structure, list(tensors)) for parameter in parameters)


def random_arguments(dag: DagModule) -> tuple[Any, ...]:
    """Return random arguments of the sizes that a graph remembers, on its device.

    Raises:
        InputError: it remembers none.
    """
    specs = dag.input_spec.tensors
    if not knows_sizes(dag):
        message = "the graph does not remember the sizes of its inputs; give them with --size or --input"
        raise InputError(message)
    device = next((tensor.device for tensor in (*dag.parameters(), *dag.buffers())), torch.device("cpu"))
    return call_arguments(dag, [random_input(spec.example_shape or (), spec.dtype, device) for spec in specs])


def knows_sizes(dag: DagModule) -> bool:
    """Tell whether a graph remembers the size of every input."""
    specs = dag.input_spec.tensors
    return bool(specs) and all(spec.example_shape is not None for spec in specs)
