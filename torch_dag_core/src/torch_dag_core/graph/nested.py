"""Nested containers: the one way to read, and the one way to replace, what stands inside them.

A container is a tuple, a list, a dict (its values) or a slice; everything else is a leaf. Named tuples keep their
class; other subclasses of tuple (`torch.Size`, results of torch functions) become plain tuples.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_CONTAINERS = (tuple, list, dict, slice)
_COMMON_LEAVES = frozenset({type(None), bool, int, float, str, Tensor, nn.Parameter, torch.dtype, torch.device})
"""Classes of most leaves; to look them up is faster than to test for every kind of container."""


def leaves(value: Any) -> list[Any]:
    """List the leaves of ``value`` in order."""
    found: list[Any] = []
    _gather((value,), found)
    return found


def is_flat(items: Collection[Any]) -> bool:
    """Tell quickly whether all items are leaves of the most common classes."""
    return _COMMON_LEAVES.issuperset(map(type, items))


def _gather(items: Iterable[Any], found: list[Any]) -> None:
    for item in items:
        kind = type(item)
        if kind in _COMMON_LEAVES:
            found.append(item)
        elif kind is tuple:  # the most common container
            _gather(item, found)
        elif not isinstance(item, _CONTAINERS):
            found.append(item)
        elif isinstance(item, dict):
            _gather(item.values(), found)
        else:
            _gather((item.start, item.stop, item.step) if isinstance(item, slice) else item, found)


def map_leaves(value: Any, function: Callable[[Any], Any]) -> Any:
    """Return ``value`` rebuilt with ``function`` applied to every leaf."""
    kind = type(value)
    if kind is tuple:  # the most common container
        return tuple(_map_items(value, function))
    if kind in _COMMON_LEAVES or not isinstance(value, _CONTAINERS):
        return function(value)
    if isinstance(value, dict):
        return {key: map_leaves(item, function) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*_map_items((value.start, value.stop, value.step), function))
    items = _map_items(value, function)
    return items if isinstance(value, list) else _like(value, items)


def _map_items(items: Iterable[Any], function: Callable[[Any], Any]) -> list[Any]:
    return [function(item) if type(item) in _COMMON_LEAVES else map_leaves(item, function) for item in items]


def map_by_class(value: Any, rules: Mapping[type, Callable[[Any], Any]]) -> Any:
    """Return ``value`` rebuilt with the rule of its class, looked up exactly, applied to each leaf that has one."""
    kind = type(value)
    if kind in rules:
        return rules[kind](value)
    if kind in _COMMON_LEAVES:
        return value
    if kind is tuple:
        return tuple([map_by_class(item, rules) for item in value])
    if not isinstance(value, _CONTAINERS):
        return value
    return map_leaves(value, lambda leaf: map_by_class(leaf, rules))


def map_pairs(first: Any, second: Any, function: Callable[[Any, Any], Any]) -> Any:
    """Return ``first`` rebuilt with ``function(leaf, other)`` for each leaf; ``other`` is its twin in ``second``.

    Where the two have different containers, or containers of different length, ``function`` gets both whole.
    """
    return map_together((first, second), lambda both: function(*both))


def map_together(values: Sequence[Any], function: Callable[[tuple[Any, ...]], Any]) -> Any:
    """Return the first of several values rebuilt with ``function`` applied to each leaf and its twins in the others.

    Where they have different containers, or containers of different length, ``function`` gets all of them whole.
    """
    first = values[0]
    if type(first) in _COMMON_LEAVES or not isinstance(first, _CONTAINERS):
        return function(tuple(values))
    others = values[1:]
    if isinstance(first, dict):
        if all(isinstance(other, dict) and other.keys() == first.keys() for other in others):
            return {key: map_together([value[key] for value in values], function) for key in first}
    elif isinstance(first, slice):
        if all(isinstance(other, slice) for other in others):
            parts = ([getattr(value, name) for value in values] for name in ("start", "stop", "step"))
            return slice(*[map_together(part, function) for part in parts])
    elif all(isinstance(other, (tuple, list)) and len(other) == len(first) for other in others):
        items = [map_together(twins, function) for twins in zip(*values, strict=True)]
        return items if isinstance(first, list) else _like(first, items)
    return function(tuple(values))


def _like(value: tuple[Any, ...], items: list[Any]) -> tuple[Any, ...]:
    return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
