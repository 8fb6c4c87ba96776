"""Nested containers: the one way to read, and the one way to replace, what stands inside them.

A container is a tuple, a list, a dict (its values) or a slice; everything else is a leaf. Named tuples keep their
class; other subclasses of tuple (`torch.Size`, results of torch functions) become plain tuples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def leaves(value: Any) -> list[Any]:
    """List the leaves of ``value`` in order."""
    found: list[Any] = []
    _gather(value, found)
    return found


def _gather(value: Any, found: list[Any]) -> None:
    if isinstance(value, (tuple, list)):
        for item in value:
            _gather(item, found)
    elif isinstance(value, dict):
        for item in value.values():
            _gather(item, found)
    elif isinstance(value, slice):
        _gather((value.start, value.stop, value.step), found)
    else:
        found.append(value)


def map_leaves(value: Any, function: Callable[[Any], Any]) -> Any:
    """Return ``value`` rebuilt with ``function`` applied to every leaf."""
    if isinstance(value, tuple):
        return _like(value, [map_leaves(item, function) for item in value])
    if isinstance(value, list):
        return [map_leaves(item, function) for item in value]
    if isinstance(value, dict):
        return {key: map_leaves(item, function) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*[map_leaves(item, function) for item in (value.start, value.stop, value.step)])
    return function(value)


def map_pairs(first: Any, second: Any, function: Callable[[Any, Any], Any]) -> Any:
    """Return ``first`` rebuilt with ``function(leaf, other)`` for each leaf; ``other`` is its twin in ``second``.

    Where the two have different containers, or containers of different length, ``function`` gets both whole.
    """
    if isinstance(first, (tuple, list)) and isinstance(second, (tuple, list)) and len(first) == len(second):
        items = [map_pairs(a, b, function) for a, b in zip(first, second, strict=True)]
        return items if isinstance(first, list) else _like(first, items)
    if isinstance(first, dict) and isinstance(second, dict) and first.keys() == second.keys():
        return {key: map_pairs(item, second[key], function) for key, item in first.items()}
    if isinstance(first, slice) and isinstance(second, slice):
        parts = ((getattr(first, name), getattr(second, name)) for name in ("start", "stop", "step"))
        return slice(*[map_pairs(a, b, function) for a, b in parts])
    return function(first, second)


def _like(value: tuple[Any, ...], items: list[Any]) -> tuple[Any, ...]:
    return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
