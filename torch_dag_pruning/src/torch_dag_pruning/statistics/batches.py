"""Batches of calibration data: the inputs in them, on the device of a graph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torch_dag_core.graph.dag import DagModule
from torch_dag_pruning.errors import CalibrationError


@dataclass(frozen=True)
class Batch:
    """The inputs of one call of a graph.

    Attributes:
        inputs: One tensor for each input vertex.
        whole: What the user gave, which may hold labels too.
    """

    inputs: tuple[Tensor, ...]
    whole: Any

    @property
    def samples(self) -> int:
        """The number of samples, which is the size of the first dimension of the first input."""
        return int(self.inputs[0].shape[0])


def read_batches(dag: DagModule, batches: Iterable[Any]) -> Iterator[Batch]:
    """Iterate over batches with their inputs on the device of a graph.

    Args:
        dag: The graph, with as many input vertices as each batch has tensors at least.
        batches: Tensors; tuples or lists that start with the inputs, such as (images, labels); or mappings that have
            the names of the input vertices as keys.

    Raises:
        CalibrationError: ``batches`` is a tensor or empty, or a batch lacks an input or has one of wrong sizes.
    """
    if isinstance(batches, Tensor):
        message = "batches must be an iterable of batches, not one tensor; pass [tensor]"
        raise CalibrationError(message)
    names = [vertex.name for vertex in dag.input_vertices]
    device = next((tensor.device for tensor in dag.parameters()), torch.device("cpu"))
    number = -1
    for number, batch in enumerate(batches):
        inputs = tuple(tensor.to(device) for tensor in _inputs(batch, names, number))
        _require_sizes(dag, inputs, number)
        yield Batch(inputs, batch)
    if number < 0:
        message = "batches holds no batch; calibration needs data (an iterator can be read once only)"
        raise CalibrationError(message)


def _inputs(batch: Any, names: list[str], number: int) -> list[Tensor]:
    if isinstance(batch, Mapping):
        found = [batch.get(name) for name in names]
    else:
        items = [batch] if isinstance(batch, Tensor) else list(batch) if isinstance(batch, (tuple, list)) else []
        found = items[: len(names)]
    tensors = [item for item in found if isinstance(item, Tensor) and item.dim() and item.shape[0]]
    if len(tensors) < len(names):
        message = (
            f"batch {number} must hold a tensor with at least one sample for each of the inputs {', '.join(names)}, "
            f"got {type(batch).__name__}"
        )
        raise CalibrationError(message)
    return tensors


def _require_sizes(dag: DagModule, inputs: Sequence[Tensor], number: int) -> None:
    specs = dag.input_spec.for_inputs(len(inputs)).tensors
    for vertex, tensor, spec in zip(dag.input_vertices, inputs, specs, strict=True):
        pairs = list(zip(tensor.shape, spec.shape, strict=False))
        if tensor.dim() != len(spec.shape) or any(wanted not in (None, size) for size, wanted in pairs):
            wanted_sizes = ", ".join("any" if size is None else str(size) for size in spec.shape)
            message = (
                f"batch {number} has sizes {tuple(tensor.shape)} for the input {vertex.name}, the graph takes "
                f"({wanted_sizes})"
            )
            raise CalibrationError(message)
