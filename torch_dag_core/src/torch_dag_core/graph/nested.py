"""Nested containers: the one way to read, and the one way to replace, what stands inside them.

A container is a tuple, a list, a dict (its values) or a slice; everything else is a leaf. Named tuples keep their
class; other subclasses of tuple (`torch.Size`, results of torch functions) become plain tuples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

_CONTAINERS = (tuple, list, dict, slice)


def leaves(value: Any) -> list[Any]:
    """List the leaves of ``value`` in order."""
    found: list[Any] = []
    _gather((value,), found)
    return found


def _gather(items: Iterable[Any], found: list[Any]) -> None:
    for item in items:
        if not isinstance(item, _CONTAINERS):
            found.append(item)
        elif isinstance(item, dict):
            _gather(item.values(), found)
        else:
            _gather((item.start, item.stop, item.step) if isinstance(item, slice) else item, found)


def map_leaves(value: Any, function: Callable[[Any], Any]) -> Any:
    """Return ``value`` rebuilt with ``function`` applied to every leaf."""
    if not isinstance(value, _CONTAINERS):
        return function(value)
    if isinstance(value, dict):
        return {key: map_leaves(item, function) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*[map_leaves(item, function) for item in (value.start, value.stop, value.step)])
    items = [map_leaves(item, function) for item in value]
    return items if isinstance(value, list) else _like(value, items)


def map_pairs(first: Any, second: Any, function: Callable[[Any, Any], Any]) -> Any:
    """Return ``first`` rebuilt with ``function(leaf, other)`` for each leaf; ``other`` is its twin in ``second``.

    Where the two have different containers, or containers of different length, ``function`` gets both whole.
    """
    if not isinstance(first, _CONTAINERS):
        return function(first, second)
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        return {key: map_pairs(item, second[key], function) for key, item in first.items()}
    if isinstance(first, slice) and isinstance(second, slice):
        parts = ((getattr(first, name), getattr(second, name)) for name in ("start", "stop", "step"))
        return slice(*[map_pairs(a, b, function) for a, b in parts])
    if isinstance(first, (tuple, list)) and isinstance(second, (tuple, list)) and len(first) == len(second):
        items = [map_pairs(a, b, function) for a, b in zip(first, second, strict=True)]
        return items if isinstance(first, list) else _like(first, items)
    return function(first, second)


def _like(value: tuple[Any, ...], items: list[Any]) -> tuple[Any, ...]:
    return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
