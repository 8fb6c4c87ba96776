"""A model run for its trace is put back to exactly what it was."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_core.tracing.execution import META


def move_parameters_to_meta(model: nn.Module) -> None:
    """Replace every parameter by one without data; tied ones stay tied. Undone by `restored`."""
    moved: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                substitute = nn.Parameter(parameter.detach().to(META), requires_grad=parameter.requires_grad)
                module._parameters[name] = moved.setdefault(id(parameter), substitute)


@contextlib.contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """Run the model in this mode; `restored` puts the modes of its parts back."""
    # Modules that keep results between calls in evaluation forget them when training begins.
    model.train()
    model.train(training)
    try:
        yield
    finally:
        model.train()


@contextlib.contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Put attributes, parameters, buffers and the random state back to what they were."""
    before = {module: _attributes(module) for module in model.modules()}
    tensors = (v for values in tensors_of(model).values() for v in values.values() if isinstance(v, Tensor))
    copies = {id(tensor): (tensor, tensor.detach().clone()) for tensor in tensors}
    state = random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        try:
            yield
        finally:
            random.setstate(state)
            for module, values in before.items():
                _put_back(module, values)
            with torch.no_grad():
                for buffer, copy in copies.values():
                    if buffer.shape == copy.shape:
                        buffer.copy_(copy)


def frozen_modules(model: nn.Module) -> frozenset[nn.Module]:
    """Return the modules that stay in evaluation mode when the model is put into training mode."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.train()
        return frozenset(module for module, _ in modes if not module.training)
    finally:
        for module, mode in modes:
            module.training = mode


def changed_attributes(model: nn.Module, before: dict[nn.Module, dict[str, Any]]) -> Iterator[tuple[str, Any, Any]]:
    """Iterate over (path, old value, new value) of tensors that are other tensors than before."""
    for prefix, module in model.named_modules():
        for name, old in before.get(module, {}).items():
            new = module._buffers.get(name, vars(module).get(name))
            if isinstance(old, Tensor) and new is not old:
                yield (f"{prefix}.{name}" if prefix else name), old, new


def tensors_of(model: nn.Module) -> dict[nn.Module, dict[str, Any]]:
    """Return every module's buffers and plain attributes."""
    return {module: {**vars(module), **module._buffers} for module in model.modules()}


def _attributes(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    """Return every attribute, and a copy of what is in it for the containers that a forward could change."""
    return {name: (value, _COPIES.get(type(value), _nothing)(value)) for name, value in vars(module).items()}


def _put_back(module: nn.Module, values: dict[str, tuple[Any, Any]]) -> None:
    attributes = vars(module)
    attributes.clear()
    for name, (value, content) in values.items():
        attributes[name] = value
        if isinstance(value, list):
            value[:] = content
        elif content is not None:
            value.clear()
            value.update(content)


def _nothing(_: Any) -> None:
    return None


_COPIES: dict[type, Any] = {dict: dict, list: list, set: set}
