"""Rebuilt results that are a dictionary, a dataclass and a tuple in one, as the outputs of some model libraries are."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from functools import cache
from typing import Any

from torch.utils import _pytree


class KeyedRecord(OrderedDict[str, Any]):
    """A dataclass whose fields other than None are also the items of a dictionary, in their order.

    ``record["name"]``, ``record.name`` and ``record[0]`` are the same value. Setting one way sets the other.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value is not None:
                super().__setitem__(field.name, value)

    def __getitem__(self, key: Any) -> Any:
        """Return the value of a key, or the one, or those, at a position or slice of `to_tuple`."""
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.keys() and value is not None:
            super().__setitem__(name, value)
        super().__setattr__(name, value)

    def to_tuple(self) -> tuple[Any, ...]:
        """Return the values that are not None."""
        return tuple(self.values())


class _RebuiltRecord(KeyedRecord):
    """A record whose class is made when it is needed, and that is pickled by the names of its fields."""

    def __reduce__(self) -> tuple[Any, ...]:
        names = tuple(field.name for field in dataclasses.fields(self))  # type: ignore[arg-type]
        return _rebuilt, (type(self).__name__, names, tuple(getattr(self, name) for name in names))


@cache
def keyed_record_type(name: str, fields: tuple[str, ...]) -> type[KeyedRecord]:
    """Return the class with this name and these fields, known to `torch.utils._pytree` and so to `torch.export`.

    Raises:
        ValueError: a field has the name of a method.
    """
    taken = [field for field in fields if hasattr(KeyedRecord, field)]
    if taken:
        message = f"a record that is a dictionary cannot have a field named {taken[0]!r}, which is a method of it"
        raise ValueError(message)
    members = [(field, Any, dataclasses.field(default=None)) for field in fields]
    made: Any = dataclasses.make_dataclass(name, members, bases=(_RebuiltRecord,), eq=False, repr=False)

    def unflatten(values: Any, keys: Any) -> KeyedRecord:
        record: KeyedRecord = made(**dict(zip(keys, values, strict=True)))
        return record

    _pytree.register_pytree_node(
        made, _flatten, unflatten, serialized_type_name=f"torch_dag_core.{name}({', '.join(fields)})",
        flatten_with_keys_fn=_flatten_with_keys,
    )  # fmt: skip
    return made  # type: ignore[no-any-return]


def _flatten(record: KeyedRecord) -> tuple[list[Any], list[str]]:
    return list(record.values()), list(record.keys())


def _flatten_with_keys(record: KeyedRecord) -> tuple[list[tuple[Any, Any]], list[str]]:
    return [(_pytree.MappingKey(key), value) for key, value in record.items()], list(record.keys())


def _rebuilt(name: str, fields: tuple[str, ...], values: tuple[Any, ...]) -> KeyedRecord:
    return keyed_record_type(name, fields)(*values)
