"""Checkpoints of a source model and of its graph: read without executing anything, compared, loaded as a whole.

Every function takes any `nn.Module`, so that weights go both ways between a model and its graph.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from torch_dag_core.errors import CheckpointError
from torch_dag_core.graph.checkpoint_keys import UNUSED
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.serialization.checkpoint_report import CheckpointReport, Shape

Checkpoint: TypeAlias = "str | Path | Mapping[str, Any] | nn.Module"
"""A file, a state dict, or a model."""

_STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")
_WRAPPERS = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before the names of a model's parameters."""


def load_checkpoint(model: nn.Module, checkpoint: Checkpoint) -> CheckpointReport:
    """Load a checkpoint into a model or a graph, if every tensor matches; otherwise change nothing.

    Args:
        model: A source model or its graph; a graph has the names of its source model.
        checkpoint: A safetensors file, a file of ``torch.save`` (of which nothing but tensors is unpickled), a state
            dict, or the model or graph that has the weights. Prefixes that DistributedDataParallel and torch.compile
            put before all names are removed, and of training checkpoints only the state dict is read. Tensors that
            nothing in a graph reads may be lacking from it.

    Returns:
        The report of what was compared, which `matches`.

    Raises:
        CheckpointError: the file cannot be read, or something does not match; ``report`` says what.
    """
    state = unwrapped(_state_of(checkpoint), model)
    report = compare_checkpoint(model, state)
    report = _without(report, _unused_in(checkpoint))
    if not report.matches:
        message = f"the checkpoint does not match the model, which is unchanged: {report}{_advice(model, report)}"
        raise CheckpointError(message, report)
    model.load_state_dict(state, strict=False)
    return report


def compare_checkpoint(model: nn.Module, checkpoint: Checkpoint) -> CheckpointReport:
    """Tell what of a checkpoint does not match a model by name or shape. Nothing is changed.

    Shared parameters need to be given under one of their names only.

    Raises:
        CheckpointError: the checkpoint is a file that cannot be read.
    """
    state = unwrapped(_state_of(checkpoint), model)
    twin = _on_meta(model)
    own = _shapes(twin.state_dict())
    given = _shapes(state)
    wrong = {name: (shape, own[name]) for name, shape in given.items() if own.get(name, shape) != shape}
    fitting = {name: _meta(value) for name, value in state.items() if name not in wrong}
    try:
        # Modules may make values for what older checkpoints lack, on any device: they are assigned, not copied.
        missing, unexpected = twin.load_state_dict(fitting, strict=False, assign=True)
    except RuntimeError as error:
        message = f"the checkpoint does not fit the model: {error}"
        raise CheckpointError(message) from error
    found = _tied_names(model, state) | wrong.keys()
    missing = [name for name in missing if name not in found]
    return CheckpointReport(tuple(missing), tuple(unexpected), wrong, own, given)


def read_checkpoint(path: str | Path) -> Mapping[str, Any]:
    """Return the tensors of a file by name.

    Raises:
        CheckpointError: there is no such file, or it holds something other than tensors by name.
    """
    path = Path(path)
    if not path.is_file():
        message = f"there is no file {str(path)!r} with weights"
        raise CheckpointError(message)
    try:
        state: Any = _stored(path)
    except pickle.UnpicklingError as error:
        message = (
            f"cannot read weights from {str(path)!r}: it is a pickle of more than tensors, such as a whole model, "
            "which is not unpickled because that can run code; where it comes from, save model.state_dict() alone"
        )
        raise CheckpointError(message) from error
    except Exception as error:
        message = f"cannot read weights from {str(path)!r}: {error}"
        raise CheckpointError(message) from error
    state = _innermost(state)
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        message = f"{str(path)!r} holds no weights: it is a {type(state).__name__} without tensors by name"
        raise CheckpointError(message)
    return state


def unwrapped(state: Mapping[str, Any], model: nn.Module) -> Mapping[str, Any]:
    """Remove the prefixes of wrappers that all names of a state dict have and no name of the model has."""
    own = model.state_dict().keys()
    while state:
        prefix = next((p for p in _WRAPPERS if all(name.startswith(p) for name in state)), None)
        if prefix is None or any(name.startswith(prefix) for name in own):
            break
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _state_of(checkpoint: Checkpoint) -> Mapping[str, Any]:
    if isinstance(checkpoint, nn.Module):
        return checkpoint.state_dict()
    if isinstance(checkpoint, Mapping):
        state: Mapping[str, Any] = _innermost(checkpoint)
        return state
    return read_checkpoint(checkpoint)


def _innermost(state: Any) -> Any:
    """Return the state dict inside the checkpoint of a training run; anything else as it is."""
    if not isinstance(state, Mapping):
        return state
    return next((state[key] for key in _STATE_DICT_KEYS if isinstance(state.get(key), Mapping)), state)


def _stored(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _unused_in(checkpoint: Checkpoint) -> frozenset[str]:
    """Return the names of the source model that a graph does not have, because nothing in it reads them."""
    if isinstance(checkpoint, DagModule):
        return frozenset(checkpoint.provenance.get(UNUSED, ()))
    return frozenset()


def _without(report: CheckpointReport, unused: frozenset[str]) -> CheckpointReport:
    return replace(report, missing=tuple(name for name in report.missing if name not in unused))


def _advice(model: nn.Module, report: CheckpointReport) -> str:
    """Return what to do where the model is probably a pruned graph: its tensors are smaller and of the same names."""
    smaller = all(
        len(given) == len(own) and all(g >= o for g, o in zip(given, own, strict=True))
        for given, own in report.wrong_shapes.values()
    )
    if isinstance(model, DagModule) and report.wrong_shapes and smaller:
        return (
            "; the graph is smaller than its source, as a pruned one is: load the checkpoint into the unpruned graph, "
            "and apply the saved plan to that"
        )
    return ""


def _on_meta(model: nn.Module) -> nn.Module:
    """Return a copy of a model whose tensors have shapes and no values."""
    twins: dict[int, Any] = {}
    for parameter in model.parameters():
        twins[id(parameter)] = nn.Parameter(_meta(parameter), parameter.requires_grad)
    for buffer in model.buffers():
        twins[id(buffer)] = _meta(buffer)
    return copy.deepcopy(model, twins)


def _meta(value: Any) -> Any:
    return value.detach().to("meta") if isinstance(value, Tensor) else value


def _shapes(state: Mapping[str, Any]) -> dict[str, Shape]:
    return {name: tuple(value.shape) for name, value in state.items() if isinstance(value, Tensor)}


def _tied_names(model: nn.Module, state: Mapping[str, Any]) -> set[str]:
    """Return the names of shared parameters for which the state has a value under one of their names."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    given = {id(parameter) for name, parameter in parameters.items() if name in state}
    return {name for name, parameter in parameters.items() if id(parameter) in given}
