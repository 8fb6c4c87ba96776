"""Nested containers of tensors as a template with numbered slots and a list of tensors, and back."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from torch_dag_core.graph.keyed_record import keyed_record_type
from torch_dag_core.graph.values import Record, Slot, encode


@lru_cache(maxsize=256)
def record_type(kind: str, name: str, fields: tuple[str, ...]) -> type:
    """Return a class with these fields: a namedtuple, a `KeyedRecord`, or a dataclass for any other kind."""
    if kind == "namedtuple":
        return collections.namedtuple(name, fields)  # noqa: PYI024
    if kind == "mapping":
        return keyed_record_type(name, fields)
    return dataclasses.make_dataclass(name, fields)


def _record_fields(value: Any) -> tuple[str, dict[str, Any]] | None:
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return "namedtuple", {name: getattr(value, name) for name in value._fields}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return ("mapping", fields | dict(value)) if isinstance(value, dict) else ("dataclass", fields)
    return None


def pack(value: Any, is_leaf: Callable[[Any], bool], leaves: list[Any]) -> Any:
    """Return the template of ``value``; each leaf is appended to ``leaves`` and leaves a `Slot`.

    Raises:
        TypeError: something inside is neither a leaf, a container nor a constant of a graph.
    """
    if is_leaf(value):
        leaves.append(value)
        return Slot(len(leaves) - 1)
    record = _record_fields(value)
    if record is not None:
        kind, fields = record
        packed = tuple((name, pack(item, is_leaf, leaves)) for name, item in fields.items())
        return Record(kind, type(value).__name__, packed)
    if isinstance(value, (tuple, list)):
        items = [pack(item, is_leaf, leaves) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, Mapping):
        return {key: pack(item, is_leaf, leaves) for key, item in value.items()}
    if isinstance(value, int) and type(value) not in (int, bool):
        value = int.__int__(value)
    if isinstance(value, float):
        value = float.__float__(value)
    encode(value)
    return value


def unpack(template: Any, leaves: Sequence[Any]) -> Any:
    """Return the value whose template and leaves `pack` gave; records become their rebuilt classes."""
    if isinstance(template, Slot):
        return leaves[template.index]
    if isinstance(template, Record):
        names = tuple(name for name, _ in template.fields)
        items = (unpack(item, leaves) for _, item in template.fields)
        return record_type(template.kind, template.name, names)(*items)
    if isinstance(template, dict):
        return {key: unpack(item, leaves) for key, item in template.items()}
    if isinstance(template, (tuple, list)):
        return type(template)(unpack(item, leaves) for item in template)
    return template


def slots(template: Any) -> list[int]:
    """List the slot numbers inside a template, in order."""
    if isinstance(template, Slot):
        return [template.index]
    return [slot for child in _children(template) for slot in slots(child)]


def _children(template: Any) -> list[Any]:
    if isinstance(template, Record):
        return [item for _, item in template.fields]
    if isinstance(template, dict):
        return list(template.values())
    return list(template) if isinstance(template, (tuple, list)) else []


def render(template: Any, variables: list[str], constants: dict[str, Any]) -> str:
    """Return a Python expression that builds the template; constants are put into ``constants`` by name."""
    if isinstance(template, Slot):
        return variables[template.index]
    if isinstance(template, Record):
        names = tuple(name for name, _ in template.fields)
        kind = _constant(record_type(template.kind, template.name, names), constants)
        return f"{kind}({', '.join(render(item, variables, constants) for _, item in template.fields)})"
    if isinstance(template, dict):
        items = ((_constant(key, constants), render(item, variables, constants)) for key, item in template.items())
        return "{" + ", ".join(f"{key}: {item}" for key, item in items) + "}"
    if isinstance(template, (tuple, list)):
        items = "".join(render(item, variables, constants) + ", " for item in template)  # type: ignore[assignment]
        return f"[{items}]" if isinstance(template, list) else f"({items})"
    return _constant(template, constants)


def _constant(value: Any, constants: dict[str, Any]) -> str:
    if value is None or isinstance(value, (bool, int, str)):
        return repr(value)
    name = f"_k{len(constants)}"
    constants[name] = value
    return name
