"""Example inputs: where they come from, and how they are resized to see what follows their sizes."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_core.conversion.axes import AXES, IMAGE, Axes
from torch_dag_core.errors import ExampleInputsError
from torch_dag_core.graph.inputs import Parameter, is_parameter_name
from torch_dag_core.graph.structure import pack, slots, unpack

STEPS = (1, 16, 32, 64, 128)
"""What image sizes of a second run differ by multiples of, tried in this order: many models take whole steps alone."""
_LARGEST_STRIDE = STEPS[-1]
_NEARBY = (67, 135, 203)
"""How much image sizes grow in run 2 where any size may be: these leave other remainders than run 1 does."""


def growth(step: int, place: int = 0, times: int = 1) -> int:
    """Return by how much an image size grows in a further run: in run 1 so far that no rounding by a stride hides it.

    Args:
        step: What sizes grow by multiples of; 0 leaves them as they are.
        place: Which image size it is, from 0 up; each grows more than the one before, so that none are confused.
        times: Which run it is: 0 for the example itself, 1 for much larger images, 2 for somewhat larger ones.
    """
    if not step or not times:
        return 0
    if times == 1:
        far = _LARGEST_STRIDE * (place + 1)
        return far + -far % step + step
    return step * (place + 1) if step > 1 else _NEARBY[place % len(_NEARBY)]


@dataclass
class ExampleInputs:
    """The arguments of one call of the model, taken apart into parameters and tensors."""

    parameters: tuple[Parameter, ...]
    names: list[str]
    tensors: list[Tensor]
    template: Any

    @classmethod
    def of(cls, model: nn.Module, inputs: Any) -> ExampleInputs:
        """Read the user's example: a tensor, a tuple of arguments, a dict of keywords, or a pair of both."""
        args, kwargs = as_arguments(inputs)
        tensors: list[Tensor] = []
        template = pack((args, kwargs), lambda v: isinstance(v, Tensor), tensors)
        if not tensors:
            message = f"example_inputs for {type(model).__name__} hold no tensor; a graph has at least one input tensor"
            raise ExampleInputsError(message)
        parameters = _parameters(model, *template)
        names = [""] * len(tensors)
        for parameter in parameters:
            inside = slots(parameter.structure)
            for place, slot in enumerate(inside):
                names[slot] = parameter.name if len(inside) == 1 else f"{parameter.name}_{place}"
        return cls(parameters, names, tensors, template)

    def call_arguments(self, tensors: list[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return args and kwargs with these tensors."""
        return unpack(self.template, tensors)  # type: ignore[no-any-return]

    def resized(self, *, batch: int | None, step: int, times: int = 1, axes: Axes = IMAGE) -> list[Tensor]:
        """Return tensors without data, of another batch size and with sizes along ``axes`` grown by `growth`."""
        return self.shaped([self._size(tensor, batch, step, times, axes) for tensor in self.tensors])

    def shaped(self, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
        """Return tensors without data of these shapes, with the dtypes of the example."""
        return [torch.empty(tuple(s), dtype=t.dtype, device="meta") for s, t in zip(shapes, self.tensors, strict=True)]

    def _size(self, tensor: Tensor, batch: int | None, step: int, times: int, axes: Axes) -> list[int]:
        shape = list(tensor.shape)
        if batch is not None and self._has_batch(tensor):
            shape[0] = batch
        # The larger side grows more, so that it stays the larger one.
        for place, dim in enumerate(sorted(axes.of(tensor), key=lambda dim: shape[dim])):
            shape[dim] += growth(step, place, times)
        return shape

    def _has_batch(self, tensor: Tensor) -> bool:
        first = next((t for t in self.tensors if t.dim() > 0), tensor)
        return tensor.dim() > 0 and tensor.shape[0] == first.shape[0]

    @property
    def batch(self) -> int:
        """The first size of the first tensor that has any."""
        return first_size([tensor.shape for tensor in self.tensors])

    @property
    def axes(self) -> tuple[Axes, ...]:
        """What might be free besides the batch, in the order in which it is tried."""
        return tuple(axes for axes in AXES if any(map(axes.of, self.tensors)))


def first_size(shapes: Sequence[Sequence[int]]) -> int:
    """Return the first size of the first shape that has any: the number of samples."""
    return next((shape[0] for shape in shapes if len(shape) > 0), 1)


def as_arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword arguments: from a tensor, a tuple, a dict of keywords, or a pair of both."""
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, dict):
        return (), inputs
    if isinstance(inputs, tuple):
        if len(inputs) == 2 and isinstance(inputs[0], tuple) and isinstance(inputs[1], dict):
            return inputs
        return inputs, {}
    message = (
        f"example_inputs is a {type(inputs).__name__}; pass a tensor, a tuple of arguments, a dict of keyword "
        "arguments, or a pair (tuple, dict)"
    )
    raise ExampleInputsError(message)


def _parameters(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Parameter, ...]:
    signature = inspect.signature(model.forward)
    try:
        bound = signature.bind(*args, **kwargs).arguments
    except TypeError as error:
        message = f"example_inputs do not fit {type(model).__name__}.forward{signature}: {error}"
        raise ExampleInputsError(message) from error
    result: list[Parameter] = []
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            result += [Parameter(f"{name}_{i}", item) for i, item in enumerate(bound.get(name, ()))]
        elif parameter.kind is parameter.VAR_KEYWORD:
            result += [Parameter(key, item) for key, item in bound.get(name, {}).items()]
        elif name in bound:
            result.append(Parameter(name, bound[name], default=_is_constant(bound[name])))
        elif _is_constant(parameter.default):
            result.append(Parameter(name, parameter.default, default=True))
    odd = next((parameter.name for parameter in result if not is_parameter_name(parameter.name)), None)
    if odd is not None:
        message = f"{type(model).__name__}.forward takes {odd!r}, which cannot name a parameter of generated code"
        raise ExampleInputsError(message)
    return tuple(result)


def _is_constant(structure: Any) -> bool:
    return structure is None or isinstance(structure, (bool, int, float, str))


_FIRST_LAYERS: dict[type[nn.Module], Any] = {
    nn.Linear: lambda m: torch.randn(2, m.in_features),
    nn.Conv1d: lambda m: torch.randn(2, m.in_channels, 64),
    nn.Conv2d: lambda m: torch.randn(2, m.in_channels, 224, 224),
    nn.Conv3d: lambda m: torch.randn(2, m.in_channels, 16, 112, 112),
    nn.Embedding: lambda _: torch.zeros(2, 16, dtype=torch.int64),
}


def guess(model: nn.Module) -> Tensor:
    """Return inputs that suit the first layer of the model.

    Raises:
        ExampleInputsError: the first layer with parameters tells nothing.
    """
    for module in model.modules():
        make = next((_FIRST_LAYERS[cls] for cls in type(module).__mro__ if cls in _FIRST_LAYERS), None)
        if make is not None:
            return make(module)  # type: ignore[no-any-return]
        if any(True for _ in module.parameters(recurse=False)):
            break
    message = f"no example inputs for {type(model).__name__}: pass example_inputs, as its forward takes them"
    raise ExampleInputsError(message)
