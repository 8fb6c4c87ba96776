"""Where a model keeps certain functions other than under a global name: attributes, containers, closures, defaults."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple


class Place(NamedTuple):
    """One place whose value can be replaced.

    Attributes:
        value: What it held when it was found.
        read: Returns what it holds now.
        write: Puts something there.
    """

    value: Any
    read: Callable[[], Any]
    write: Callable[[Any], None]


def places_in(container: object, content: object, wanted: frozenset[int]) -> Iterator[Place]:
    """Yield the places of a dict, a list or a cell of a closure, given its content, whose values have wanted ids."""
    values = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    if wanted.isdisjoint(map(id, values)):
        return
    items = content.items() if isinstance(content, dict) else enumerate(values)
    found = [(key, value) for key, value in items if id(value) in wanted]
    if isinstance(container, types.CellType):
        for _, value in found:
            yield Place(
                value, partial(getattr, container, "cell_contents"), partial(setattr, container, "cell_contents")
            )
    elif isinstance(container, (dict, list)):
        for key, value in found:
            yield Place(value, partial(container.__getitem__, key), partial(container.__setitem__, key))


def places_in_defaults(function: types.FunctionType, wanted: frozenset[int]) -> Iterator[Place]:
    """Yield the default values of parameters that have wanted ids."""
    defaults = function.__defaults__ or ()
    for position, value in enumerate(defaults):
        if id(value) in wanted:
            yield Place(value, partial(_default, function, position), partial(_set_default, function, position))
    yield from places_in(function.__kwdefaults__, function.__kwdefaults__, wanted)


def places_in_class(cls: type, wanted: frozenset[int]) -> Iterator[Place]:
    """Yield the attributes of a class that have wanted ids; static methods count as the functions behind them."""
    for name, value in list(vars(cls).items()):
        function = value.__func__ if isinstance(value, staticmethod) else value
        if id(function) in wanted:
            yield Place(function, partial(getattr, cls, name), partial(_set_static, cls, name, value))


def _default(function: types.FunctionType, position: int) -> Any:
    return (function.__defaults__ or ())[position]


def _set_default(function: types.FunctionType, position: int, value: Any) -> None:
    defaults = list(function.__defaults__ or ())
    defaults[position] = value
    function.__defaults__ = tuple(defaults)


def _set_static(cls: type, name: str, own: Any, value: Any) -> None:
    """Set an attribute of a class to a function that is no method, or back to what it was."""
    is_own = value is own or value is getattr(own, "__func__", None)
    setattr(cls, name, own if is_own else value if isinstance(value, type) else staticmethod(value))
