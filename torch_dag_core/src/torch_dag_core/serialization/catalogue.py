"""The ops that a file may use: those of the registry, and classes that the caller passes."""

from __future__ import annotations

import reprlib
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from torch_dag_core.errors import SerializationError
from torch_dag_core.plugins.calling import is_foreign, release_name
from torch_dag_core.plugins.codecs import ClassCodec
from torch_dag_core.plugins.discovery import distribution_version
from torch_dag_core.plugins.loading import default_registry
from torch_dag_core.plugins.registry import OpSpec, Registry

USER_NAMESPACE = "user."


def chosen_registry(registry: Registry | None) -> Registry:
    """Return a copy of the given or the default registry, to which classes may be added."""
    if registry is None:
        registry = default_registry()
    return registry.copy()


def add_classes(registry: Registry, classes: Iterable[type[nn.Module]]) -> None:
    """Register a user's own classes as ``user.<ClassName>``; a class that is registered already keeps its key.

    Raises:
        SerializationError: a class has no method ``config()``.
    """
    for target in classes:
        if registry.for_class(target) is None:
            registry.add(_user_spec(target), owner="")


def _user_spec(target: type[nn.Module]) -> OpSpec:
    if not callable(getattr(target, "config", None)):
        message = (
            f"{target.__qualname__} has no method config() that returns its constructor arguments as constants; "
            "add one, or register the class with an OpSpec that has a codec"
        )
        raise SerializationError(message)
    return OpSpec(key=f"{USER_NAMESPACE}{target.__name__}", target=target, codec=ClassCodec(target))


def spec_of(registry: Registry, vertex: str, module: nn.Module) -> OpSpec:
    """Return the op with whose codec a module is saved; registers the class first if it has a method ``config()``.

    Raises:
        SerializationError: the class is not registered, or has no codec; names the vertex.
    """
    spec = registry.for_class(type(module))
    if spec is None and callable(getattr(type(module), "config", None)):
        add_classes(registry, [type(module)])
        spec = registry.for_class(type(module))
    if spec is None or spec.codec is None:
        kind = f"{type(module).__module__}.{type(module).__qualname__}"
        missing = "not in the registry" if spec is None else f"registered as {spec.key!r} without a codec"
        message = (
            f"vertex {vertex!r} cannot be saved: its class {kind} is {missing}; register an OpSpec with a codec "
            "(torch_dag_ops hook), or give the class a method config() and load with atomic_modules=(the class,)"
        )
        raise SerializationError(message)
    return spec


def build(spec: OpSpec, config: Mapping[str, Any]) -> nn.Module:
    """Build a module on the meta device from its configuration.

    Warnings of its constructor are suppressed: they were shown when the model was made.

    Raises:
        TypeError: the codec returned a module of another class, or any error of the constructor.
    """
    assert spec.codec is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = spec.codec.build(config)
    if type(module) is not spec.target:
        message = f"the codec of {spec.key!r} built a {type(module).__name__}"
        raise TypeError(message)
    return module


def named_op(spec: OpSpec) -> str:
    """Return the key of an op for messages; for an op of a plugin, with the plugin's distribution."""
    return f"{spec.key!r} of {release_name(spec.owner)}" if is_foreign(spec.owner) else repr(spec.key)


def constants_of(spec: OpSpec, module: nn.Module) -> dict[str, Any]:
    """Return the configuration of a module, as the codec of its op gives it.

    Raises:
        TypeError: the codec returned anything but a dict with string keys. Errors of the codec itself pass through.
    """
    assert spec.codec is not None
    config: Any = spec.codec.config(module)
    if not isinstance(config, dict) or not all(isinstance(name, str) for name in config):
        message = f"its codec returned {reprlib.repr(config)}, not a dict of constants by name"
        raise TypeError(message)
    return config


def owner_version(owner: str) -> str:
    """Return the installed version of a distribution; an empty string if it is not installed."""
    return distribution_version(owner)
