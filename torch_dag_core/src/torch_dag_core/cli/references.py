"""Models named on the command line.

A reference is the path of a saved graph, ``PREFIX:NAME`` with a prefix that a plugin provides (``timm:resnet18``), or
``package.module:callable``. Prefixes of plugins take precedence over Python modules of the same name.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn

from torch_dag_core.cli.literals import read_literal
from torch_dag_core.cli.weights import load_weights
from torch_dag_core.errors import ModelReferenceError
from torch_dag_core.plugins.loading import first_answer, list_plugins, require
from torch_dag_core.serialization import load
from torch_dag_core.serialization.shards import is_sharded
from torch_dag_core.serialization.writer import METADATA_KEY

_PLUGINS = {"timm": "torch-dag-timm", "transformers": "torch-dag-transformers"}
"""Libraries whose models have names through a plugin, with the distribution to install."""
_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
_DOWNLOAD = (
    "trained weights may have to be downloaded: without network, fetch the file elsewhere and pass it with --weights"
)


@dataclass(frozen=True)
class Arguments:
    """The arguments for the callable that a reference names."""

    positional: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Arguments:
        """Parse ``key=value`` pairs and plain values, as `read_literal` does.

        >>> Arguments.parse(["3", "name", "depth=(1, 2)", "act=relu", "bias=false"])
        Arguments(positional=(3, 'name'), options={'depth': (1, 2), 'act': 'relu', 'bias': False})
        """
        positional, options = [], {}
        for text in texts:
            key, equals, value = text.partition("=")
            if equals and key.isidentifier():
                options[key] = read_literal(value)
            else:
                positional.append(read_literal(text))
        return cls(tuple(positional), options)


def load_model(
    reference: str, arguments: Sequence[str] = (), weights: Path | None = None, *, pretrained: bool = False
) -> nn.Module:
    """Build or load the model that a reference names, and load weights into it.

    Args:
        reference: The model.
        arguments: For the callable that it names, as texts.
        weights: A file with weights.
        pretrained: Whether to ask the source of the model for its trained weights (``pretrained=True``).

    Raises:
        ModelReferenceError: the reference names no model, or there are no such weights or they do not fit it.
    """
    parsed = Arguments.parse([*arguments, *(["pretrained=True"] if pretrained else [])])
    model = _saved_graph(reference, parsed)
    try:
        if model is None:
            model = _named_model(reference, parsed)
        if model is None:
            model = _imported_model(reference, parsed)
    except ModelReferenceError as error:
        if not pretrained:
            raise
        message = f"{error}; {_DOWNLOAD}"
        raise ModelReferenceError(message) from error
    if weights is not None:
        load_weights(model, weights)
    return model


def _saved_graph(reference: str, arguments: Arguments) -> nn.Module | None:
    path = Path(reference)
    saved = path.is_file() or is_sharded(path)
    if not saved and path.suffix != ".safetensors":
        return None
    if path.suffix in _PICKLES:
        message = (
            f"{reference!r} is no saved graph; if it holds weights, name their model and pass the file with --weights. "
            "A pickled model is not loaded, because unpickling can run code"
        )
        raise ModelReferenceError(message)
    if arguments != Arguments():
        message = f"{reference!r} is a saved graph, which takes no arguments and has its own weights"
        raise ModelReferenceError(message)
    if not saved:
        message = f"there is no file {reference!r}"
        raise ModelReferenceError(message)
    _refuse_weights(path)
    return load(path)


def _refuse_weights(path: Path) -> None:
    """Refuse a safetensors file of weights alone; what is no safetensors file at all is for `load` to refuse."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
    except (SafetensorError, OSError):
        return
    if METADATA_KEY not in (metadata or {}):
        message = (
            f"{str(path)!r} holds weights without a graph; name their model and pass the file with --weights: "
            f"torch-dag COMMAND MODEL --weights {path}"
        )
        raise ModelReferenceError(message)


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
    try:
        target = attribute_named(reference, module_name, attribute)
    except ModelReferenceError as error:
        if module_name not in _PLUGINS or any(info.name == module_name for info in list_plugins()):
            raise
        plugin = _PLUGINS[module_name]
        message = f"{reference!r} needs the plugin for {module_name}, which is not installed; pip install {plugin}"
        raise ModelReferenceError(message) from error
    return _call(reference, target, arguments)


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
