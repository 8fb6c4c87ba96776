"""The graph that is exported, with example inputs, names for inputs and outputs, and its `torch.export` program."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from torch_dag_core.analysis.random_inputs import random_input
from torch_dag_core.conversion.example_inputs import as_arguments
from torch_dag_core.errors import InputError
from torch_dag_core.graph.conditions import hold
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.inputs import Parameter
from torch_dag_core.graph.interpret import bind_inputs
from torch_dag_core.graph.structure import slots, unpack, walk
from torch_dag_core.graph.values import Slot
from torch_dag_export.constant_items import write_items_out
from torch_dag_export.errors import ExportError, first_line

_BATCHES = (1, 3, 4, 5, 6, 8, 12, 16)
"""Batch sizes to check besides that of the example, the first that the graph takes."""


@dataclass(frozen=True, eq=False)
class ExportSubject:
    """What is exported.

    Attributes:
        dag: The graph, on the CPU and in evaluation mode.
        tensors: An example for each input vertex.
        free_batch: Whether the batch size is left free.
    """

    dag: DagModule
    tensors: tuple[Tensor, ...]
    free_batch: bool

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The parameters of ``forward`` up to the last that holds a tensor or has no default."""
        found = list(self.dag.input_spec.for_inputs(len(self.tensors)).parameters)
        while found and found[-1].default and not slots(found[-1].structure):
            found.pop()
        return tuple(found)

    def arguments(self, tensors: Sequence[Any] | None = None) -> tuple[Any, ...]:
        """Return positional arguments of the graph that hold these tensors, or those of the example."""
        leaves = list(self.tensors if tensors is None else tensors)
        return tuple(unpack(parameter.structure, leaves) for parameter in self.parameters)

    @property
    def input_names(self) -> tuple[str, ...]:
        """A name for each input tensor: that of the parameter, with a number where that holds several."""
        names = [""] * len(self.tensors)
        for parameter in self.parameters:
            inside = slots(parameter.structure)
            for place, slot in enumerate(inside):
                names[slot] = parameter.name if len(inside) == 1 else f"{parameter.name}_{place}"
        return tuple(names)

    def in_program_order(self, values: Sequence[Any]) -> tuple[Any, ...]:
        """Return values, one for each input of the graph, in the order of the parameters, as programs take them."""
        return tuple(values[slot] for parameter in self.parameters for slot in slots(parameter.structure))

    @property
    def output_names(self) -> tuple[str, ...]:
        """A name for each tensor that the graph returns: its path in the returned value, such as ``features_0``."""
        structure = self.dag.output_vertex(training=False).structure
        paths = ["_".join(str(step.key) for step in path) for path, part in walk(structure) if isinstance(part, Slot)]
        named = [path if path and not path[0].isdigit() else f"output_{path}".rstrip("_") for path in paths]
        return tuple(_not_taken(named, self.input_names))

    def batches(self) -> tuple[tuple[Tensor, ...], ...]:
        """Return the inputs that an exported model is checked on: the example, and one of another batch size."""
        if not self.free_batch:
            return (self.tensors,)
        size = next(len(self.tensors[index]) for index in _batched(self.dag))
        others = (self.with_batch(other) for other in _BATCHES if other != size)
        fitting = (each for each in others if self._takes(each))
        return (self.tensors, *[each for each, _ in zip(fitting, range(1), strict=False)])

    def with_batch(self, size: int) -> tuple[Tensor, ...]:
        """Return the example with this batch size, its samples repeated or cut off."""
        batched = _batched(self.dag)
        return tuple(
            tensor[torch.arange(size) % len(tensor)] if index in batched else tensor
            for index, tensor in enumerate(self.tensors)
        )

    def _takes(self, tensors: Sequence[Tensor]) -> bool:
        return hold(self.dag.input_spec.assumptions, [tensor.shape for tensor in tensors])

    @cached_property
    def program(self) -> torch.export.ExportedProgram:
        """The program of `torch.export`, made at first use; its batch size is without bounds where it is free.

        Raises:
            ExportError: PyTorch cannot export the graph.
        """
        return self.exported()

    def exported(self, *, largest_batch: int | None = None) -> torch.export.ExportedProgram:
        """Return a program of `torch.export`, for batches up to a size where the batch is free.

        Raises:
            ExportError: PyTorch cannot export the graph.
        """
        shapes = self._dynamic_shapes(largest_batch) if self.free_batch else None
        try:
            program = torch.export.export(self.dag, self.arguments(), dynamic_shapes=shapes)
        except Exception as error:
            message = f"torch.export cannot take the graph: {type(error).__name__}: {first_line(error)}"
            raise ExportError(message) from error
        write_items_out(program)
        return program

    def _dynamic_shapes(self, largest: int | None) -> tuple[Any, ...]:
        """Return what `torch.export` is told of the sizes of the arguments: which dimensions are free."""
        batched, batch = _batched(self.dag), {0: torch.export.Dim.DYNAMIC(max=largest)}
        free = [batch if index in batched else None for index in range(len(self.tensors))]
        places = {id(tensor): index for index, tensor in enumerate(self.tensors)}
        shaped = tree_map_only(Tensor, lambda tensor: _Dims(free[places[id(tensor)]]), self.arguments())
        return _plain_dims(shaped)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Dims:
    """Stands for one tensor among the arguments, so that constants beside it can be told apart."""

    value: Any


def _plain_dims(value: Any) -> Any:
    if isinstance(value, _Dims):
        return value.value
    if isinstance(value, dict):
        return {key: _plain_dims(item) for key, item in value.items()}
    return type(value)(map(_plain_dims, value)) if type(value) in (tuple, list) else None


def _batched(dag: DagModule) -> list[int]:
    """Return the numbers of the inputs whose first dimension is free."""
    return [index for index, spec in enumerate(dag.input_spec.tensors) if spec.shape and spec.shape[0] is None]


def _not_taken(names: Sequence[str], taken: Sequence[str]) -> Iterator[str]:
    for name in names:
        yield f"{name}_out" if name in taken else name


@contextmanager
def subject_of(dag: DagModule, example_inputs: Any, *, free_batch: bool) -> Iterator[ExportSubject]:
    """Give the subject of an export; the modes of the graph's modules are restored afterwards.

    A graph on another device is copied to the CPU first, since a program keeps the device that it was made on.

    Args:
        dag: The graph.
        example_inputs: Arguments of a call; None for random ones of the sizes that the graph remembers.
        free_batch: Whether the batch size is to be left free, where the graph allows it.

    Raises:
        InputError: there are no inputs and the graph remembers no sizes, or it does not take these.
    """
    on_cpu = all(tensor.device.type == "cpu" for tensor in (*dag.parameters(), *dag.buffers()))
    chosen = dag if on_cpu else copy.deepcopy(dag).cpu()
    with _evaluating(chosen):
        free = free_batch and bool(_batched(chosen))
        yield ExportSubject(chosen, _example(chosen, example_inputs, free=free), free)


@contextmanager
def _evaluating(dag: DagModule) -> Iterator[None]:
    modes: dict[nn.Module, bool] = {module: module.training for module in dag.modules()}
    dag.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _example(dag: DagModule, example_inputs: Any, *, free: bool) -> tuple[Tensor, ...]:
    """Return an example for each input, with at least two samples if the batch is free: torch.export fixes a size 1."""
    if example_inputs is None:
        tensors = random_example(dag)
    else:
        args, kwargs = as_arguments(example_inputs)
        tensors = tuple(tensor.detach().cpu() for tensor in bind_inputs(dag, *args, **kwargs))
    batched = _batched(dag)
    if not free or min(len(tensors[index]) for index in batched) > 1:
        return tensors
    return ExportSubject(dag, tensors, free_batch=True).with_batch(2)


def random_example(dag: DagModule) -> tuple[Tensor, ...]:
    """Return random inputs of the sizes that a graph remembers.

    Raises:
        InputError: it remembers none.
    """
    if not dag.input_spec.knows_sizes:
        message = "the graph does not remember the sizes of its inputs; pass example_inputs, or --size or --input"
        raise InputError(message)
    return tuple(random_input(spec.example_shape or (), spec.dtype) for spec in dag.input_spec.tensors)
