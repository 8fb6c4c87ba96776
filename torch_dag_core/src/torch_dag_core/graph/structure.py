"""Nested containers of tensors as a template with numbered slots and a list of tensors, and back."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from torch_dag_core.graph.keyed_record import keyed_record_type
from torch_dag_core.graph.values import Record, Slot, encode

T = TypeVar("T")


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
    return fold(template, lambda leaf: leaves[leaf.index] if isinstance(leaf, Slot) else leaf, _rebuilt)


def _rebuilt(template: Any, items: list[Any]) -> Any:
    if isinstance(template, Record):
        return class_of(template)(*items)
    return dict(zip(template, items, strict=True)) if isinstance(template, dict) else type(template)(items)


def class_of(record: Record) -> type:
    """Return the class that stands for a record's own in a rebuilt value."""
    return record_type(record.kind, record.name, tuple(name for name, _ in record.fields))


# Walking -------------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """The way from a container to one of its items.

    Attributes:
        key: Name of an attribute, key of a dictionary, or position.
        is_attribute: Whether it is the name of an attribute.
    """

    key: Any
    is_attribute: bool = False

    def __str__(self) -> str:
        return f".{self.key}" if self.is_attribute else f"[{self.key!r}]"


def _items(template: Any) -> list[tuple[Step, Any]] | None:
    """List what a container holds; None for everything that is no container."""
    if isinstance(template, Record):
        return [(Step(name, is_attribute=True), item) for name, item in template.fields]
    if isinstance(template, dict):
        return [(Step(key), item) for key, item in template.items()]
    return [(Step(i), item) for i, item in enumerate(template)] if isinstance(template, (tuple, list)) else None


def walk(template: Any) -> Iterator[tuple[tuple[Step, ...], Any]]:
    """Iterate over a template and all that is inside it, each with its path; a container comes before its items."""
    stack: list[tuple[tuple[Step, ...], Any]] = [((), template)]
    while stack:
        path, item = stack.pop()
        yield path, item
        stack += [((*path, step), inner) for step, inner in reversed(_items(item) or ())]


def is_container(template: Any) -> bool:
    """Tell whether a part of a template holds others."""
    return _items(template) is not None


def fold(template: Any, leaf: Callable[[Any], T], container: Callable[[Any, list[T]], T]) -> T:
    """Return what ``container`` makes of the outermost container, and of what it and ``leaf`` made of its items."""
    items = _items(template)
    return leaf(template) if items is None else container(template, [fold(item, leaf, container) for _, item in items])


def slots(template: Any) -> list[int]:
    """List the slot numbers inside a template, in order."""
    return [item.index for _, item in walk(template) if isinstance(item, Slot)]


# Text ----------------------------------------------------------------------------------------------------------


def written(
    template: Any, leaf: Callable[[Any], str], key: Callable[[Any], str] = repr,
    name: Callable[[Record], str] = lambda record: record.name,
) -> str:  # fmt: skip
    """Return a template as a Python expression.

    Args:
        template: The template.
        leaf: Returns the text of a slot or of a constant.
        key: Returns the text of the key of a dictionary.
        name: Returns the text of the class of a record.
    """

    def container(value: Any, items: list[str]) -> str:
        if isinstance(value, Record):
            return (
                f"{name(value)}({', '.join(f'{n}={item}' for (n, _), item in zip(value.fields, items, strict=True))})"
            )
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key(k)}: {item}" for k, item in zip(value, items, strict=True)) + "}"
        inside = ", ".join(items)
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' if len(items) == 1 else ''})"

    return fold(template, leaf, container)


def render(template: Any, variables: list[str], constants: dict[str, Any]) -> str:
    """Return a Python expression that builds the template; constants are put into ``constants`` by name."""
    return written(
        template,
        lambda leaf: variables[leaf.index] if isinstance(leaf, Slot) else _constant(leaf, constants),
        lambda key: _constant(key, constants),
        lambda record: _constant(class_of(record), constants),
    )


def _constant(value: Any, constants: dict[str, Any]) -> str:
    if value is None or isinstance(value, (bool, int, str)):
        return repr(value)
    name = f"_k{len(constants)}"
    constants[name] = value
    return name
