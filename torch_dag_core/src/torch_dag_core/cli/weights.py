"""Weights from files: read without executing anything in them, and refused with what is wrong."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from torch_dag_core.errors import ModelReferenceError

_STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")
_WRAPPERS = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before the names of a model's parameters."""
_SHOWN = 5


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a safetensors file, or a state dict saved by ``torch.save``, of which nothing but tensors is unpickled.

    Prefixes that wrappers such as DistributedDataParallel put before all names are removed.

    Raises:
        ModelReferenceError: the file cannot be read, or its tensors do not match those of the model.
    """
    state = _unwrapped(_read_weights(path), model)
    own = model.state_dict()
    _refuse_sizes(path, {name: tuple(tensor.shape) for name, tensor in own.items()}, state)
    tied = _tied_names(model, state)
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        message = f"the weights in {str(path)!r} do not fit the model: {error}"
        raise ModelReferenceError(message) from error
    missing = [name for name in missing if name not in tied]
    if missing or unexpected:
        message = (
            f"the weights in {str(path)!r} are not the model's: {_differences(missing, unexpected)}; name the model "
            "that they belong to, with its arguments (--arg)"
        )
        raise ModelReferenceError(message)


def _read_weights(path: Path) -> Mapping[str, Tensor]:
    """Return the tensors of a file by name.

    Raises:
        ModelReferenceError: there is no such file, or it holds something other than tensors by name.
    """
    if not path.is_file():
        message = f"there is no file {str(path)!r} with weights"
        raise ModelReferenceError(message)
    try:
        state: Any = _stored(path)
    except pickle.UnpicklingError as error:
        message = (
            f"cannot read weights from {str(path)!r}: it is a pickle of more than tensors, such as a whole model, "
            "which is not unpickled because that can run code; where it comes from, save model.state_dict() alone"
        )
        raise ModelReferenceError(message) from error
    except Exception as error:
        message = f"cannot read weights from {str(path)!r}: {error}"
        raise ModelReferenceError(message) from error
    if isinstance(state, Mapping):
        state = next((state[key] for key in _STATE_DICT_KEYS if isinstance(state.get(key), Mapping)), state)
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        message = f"{str(path)!r} holds no weights: it is a {type(state).__name__} without tensors by name"
        raise ModelReferenceError(message)
    return cast("Mapping[str, Tensor]", state)


def _stored(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _unwrapped(state: Mapping[str, Tensor], model: nn.Module) -> Mapping[str, Tensor]:
    """Remove the prefixes that all names have and no name of the model has."""
    own = model.state_dict().keys()
    while True:
        prefix = next((p for p in _WRAPPERS if all(name.startswith(p) for name in state)), None)
        if prefix is None or any(name.startswith(prefix) for name in own):
            return state
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def _refuse_sizes(path: Path, own: Mapping[str, tuple[int, ...]], state: Mapping[str, Any]) -> None:
    wrong = [
        f"{name!r} is {tuple(tensor.shape)} in the file and {own[name]} in the model"
        for name, tensor in state.items()
        if isinstance(tensor, Tensor) and name in own and tuple(tensor.shape) != own[name]
    ]
    if wrong:
        more = f", and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        message = (
            f"the weights in {str(path)!r} do not fit the model: size mismatch: {', '.join(wrong[:_SHOWN])}{more}; "
            "name the model with the arguments that they were made with (--arg)"
        )
        raise ModelReferenceError(message)


def _tied_names(model: nn.Module, state: Mapping[str, Tensor]) -> set[str]:
    """Return the names of shared parameters for which the state has a value under one of their names."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    given = {id(parameter) for name, parameter in parameters.items() if name in state}
    return {name for name, parameter in parameters.items() if id(parameter) in given}


def _differences(missing: Sequence[str], unexpected: Sequence[str]) -> str:
    groups = (("missing", missing), ("unexpected", unexpected))
    return ", ".join(
        f"{len(names)} {label} ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"
        for label, names in groups
        if names
    )
