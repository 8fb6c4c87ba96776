"""Models named on the command line.

A reference is the path of a saved graph, ``PREFIX:NAME`` with a prefix that a plugin provides (``timm:resnet18``), or
``package.module:callable``. Prefixes of plugins take precedence over Python modules of the same name.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from torch_dag_core.errors import ModelReferenceError
from torch_dag_core.plugins.loading import first_answer, list_plugins, require
from torch_dag_core.serialization import load

_STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")
_SHOWN = 5


@dataclass(frozen=True)
class Arguments:
    """The arguments for the callable that a reference names."""

    positional: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Arguments:
        """Parse ``key=value`` pairs and plain values. A value that is not a Python literal is taken as a string.

        >>> Arguments.parse(["3", "name", "depth=(1, 2)", "act=relu"])
        Arguments(positional=(3, 'name'), options={'depth': (1, 2), 'act': 'relu'})
        """
        positional, options = [], {}
        for text in texts:
            key, equals, value = text.partition("=")
            if equals and key.isidentifier():
                options[key] = _value(value)
            else:
                positional.append(_value(text))
        return cls(tuple(positional), options)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def load_model(reference: str, arguments: Sequence[str] = (), weights: Path | None = None) -> nn.Module:
    """Build or load the model that a reference names, and load weights into it.

    Raises:
        ModelReferenceError: the reference names no model, or the weights do not fit it.
    """
    parsed = Arguments.parse(arguments)
    model = _saved_graph(reference, parsed)
    if model is None:
        model = _named_model(reference, parsed)
    if model is None:
        model = _imported_model(reference, parsed)
    if weights is not None:
        load_weights(model, weights)
    return model


def _saved_graph(reference: str, arguments: Arguments) -> nn.Module | None:
    path = Path(reference)
    if not path.is_file() and path.suffix != ".safetensors":
        return None
    if arguments != Arguments():
        message = f"{reference!r} is a saved graph, which takes no arguments"
        raise ModelReferenceError(message)
    if not path.is_file():
        message = f"there is no file {reference!r}"
        raise ModelReferenceError(message)
    return load(path)


def _named_model(reference: str, arguments: Arguments) -> nn.Module | None:
    model = first_answer("torch_dag_model_source", nn.Module, reference=reference, options=arguments.options)
    if model is not None and arguments.positional:
        message = f"{reference!r} takes only key=value arguments, not {arguments.positional[0]!r}"
        raise ModelReferenceError(message)
    return model


def _imported_model(reference: str, arguments: Arguments) -> nn.Module:
    module_name, colon, attribute = reference.partition(":")
    if any(info.name == module_name and (info.error or info.disabled) for info in list_plugins()):
        require(module_name)
    if not (colon and module_name and attribute):
        message = (
            f"{reference!r} is no model reference; write timm:NAME, torchvision:NAME, package.module:callable, "
            "or the path of a saved graph"
        )
        raise ModelReferenceError(message)
    return _call(reference, attribute_named(reference, module_name, attribute), arguments)


def attribute_named(reference: str, module_name: str, attribute: str) -> Any:
    """Return what ``module:attribute`` names.

    Raises:
        ModelReferenceError: the module cannot be imported, or has no such attribute.
    """
    if "" not in sys.path:
        # Console scripts, unlike `python -m`, do not have the current folder on their path.
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        message = f"{reference!r} names the module {module_name!r}, which cannot be imported: {error}"
        raise ModelReferenceError(message) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            message = f"{reference!r} names {attribute!r}, which {module_name!r} does not have"
            raise ModelReferenceError(message)
        found = getattr(found, part)
    return found


def _call(reference: str, target: Any, arguments: Arguments) -> nn.Module:
    if isinstance(target, nn.Module) and arguments == Arguments():
        return target
    if not callable(target) or isinstance(target, nn.Module):
        message = f"{reference!r} is a {type(target).__name__}, which cannot be called with arguments to get a model"
        raise ModelReferenceError(message)
    try:
        model = target(*arguments.positional, **arguments.options)
    except Exception as error:
        message = f"{reference!r} failed with the given arguments: {type(error).__name__}: {error}"
        raise ModelReferenceError(message) from error
    if not isinstance(model, nn.Module):
        message = f"{reference!r} returned a {type(model).__name__}, not an nn.Module"
        raise ModelReferenceError(message)
    return model


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a safetensors file, or a state dict saved by ``torch.save``, of which nothing but tensors is unpickled.

    Raises:
        ModelReferenceError: the file cannot be read, or its tensors do not match those of the model.
    """
    try:
        state = _read_weights(path)
    except Exception as error:
        message = f"cannot read weights from {str(path)!r}: {error}"
        raise ModelReferenceError(message) from error
    tied = _tied_names(model, state)
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        message = f"the weights in {str(path)!r} do not fit the model: {error}"
        raise ModelReferenceError(message) from error
    missing = [name for name in missing if name not in tied]
    if missing or unexpected:
        message = f"the weights in {str(path)!r} are not the model's: {_differences(missing, unexpected)}"
        raise ModelReferenceError(message)


def _read_weights(path: Path) -> Mapping[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return cast("dict[str, Tensor]", load_file(path))
    state = torch.load(path, map_location="cpu", weights_only=True)
    nested = next((state[key] for key in _STATE_DICT_KEYS if isinstance(state.get(key), Mapping)), state)
    return cast("Mapping[str, Tensor]", nested)


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
