"""Checks of the records that plugins add: of their fields when a record is made, of classes when it is registered."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch_dag_core.plugins.registry import OpSpec

_KEPT_PACKAGES = {"torch.nn": "torch", "torch_dag_core": "torch-dag-core"}


@dataclass(frozen=True)
class Kind:
    """A test of one field and what to call the values that pass."""

    what: str
    holds: Callable[[Any], bool]


def _is_class(value: Any) -> bool:
    if not isinstance(value, type):
        return False
    from torch import nn

    return issubclass(value, nn.Module)


def _is_dotted(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\w+(\.\w+)+", value) is not None


def _is_codec(value: Any) -> bool:
    return not isinstance(value, type) and all(callable(getattr(value, name, None)) for name in ("config", "build"))


def _are_names(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(name, str) and name for name in value)


OP_KEY = Kind("a string such as 'namespace.op'", _is_dotted)
MODULE_CLASS = Kind("a subclass of nn.Module", _is_class)
CLASS_OR_NAME = Kind("a subclass of nn.Module or a dotted name", lambda value: _is_class(value) or _is_dotted(value))
CODEC = Kind("None or an object with config(module) and build(config)", lambda v: v is None or _is_codec(v))
NAMES = Kind("a tuple of function names", _are_names)
SOME_NAMES = Kind("a tuple of at least one function name", lambda value: bool(value) and _are_names(value))
CALLABLE = Kind("callable", callable)
OPTIONAL_CALLABLE = Kind("None or callable", lambda value: value is None or callable(value))
VERSION = Kind("an int of at least 1", lambda value: type(value) is int and value >= 1)


def check_fields(record: object, kinds: Mapping[str, Kind]) -> None:
    """Refuse a record with a field of another kind.

    Raises:
        TypeError: names the record, the field and what was expected.
    """
    for name, kind in kinds.items():
        value = getattr(record, name)
        if not kind.holds(value):
            message = f"{name} of {type(record).__name__} must be {kind.what}, not {reprlib.repr(value)}"
            raise TypeError(message)


def foreign_class(name: str, ops: Iterable[OpSpec], distribution: str) -> str:
    """Return whose class an atomic module takes that is not the plugin's to take; empty where it may.

    Plugins may take the classes of any other library, which have no conversion of their own yet.

    Args:
        name: Dotted name of the class.
        ops: The ops that are registered.
        distribution: The plugin's own distribution, whose ops may be atomic modules too.
    """
    for package, owner in _KEPT_PACKAGES.items():
        if name.startswith(f"{package}."):
            return owner
    owners = (op.owner for op in ops if f"{op.target.__module__}.{op.target.__qualname__}" == name)
    return next((f"an op of {owner}" for owner in owners if owner != distribution), "")
