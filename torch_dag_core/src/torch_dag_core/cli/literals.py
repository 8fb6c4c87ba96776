"""Values written on the command line: the arguments of a model, and the settings of an algorithm."""

from __future__ import annotations

import ast
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

_CONSTANTS = {"true": True, "false": False, "none": None}
_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def read_value(hint: Any, text: str) -> Any:
    """Turn a text into a value of a type.

    >>> read_value(tuple[int, ...] | None, "1,2"), read_value(bool, "no"), read_value(float | None, "none")
    ((1, 2), False, None)

    Raises:
        ValueError: the text does not stand for such a value.
    """
    if hint in _READERS:
        return _READERS[hint](text)
    reader = _GENERIC.get(get_origin(hint))
    return ast.literal_eval(text) if reader is None else reader(hint, text)


def read_literal(text: str) -> Any:
    """Turn a text into the value that it looks like, where no type is known.

    Python literals are read as such, and true, false and none in any case; everything else stays text. Quotes make
    text of anything.

    >>> read_literal("false"), read_literal("'false'"), read_literal("(1, 2)"), read_literal("relu")
    (False, 'false', (1, 2), 'relu')
    """
    if text.lower() in _CONSTANTS:
        return _CONSTANTS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def _read_bool(text: str) -> bool:
    if text.lower() not in _WORDS:
        raise ValueError(text)
    return _WORDS[text.lower()]


def _read_none(text: str) -> None:
    if text.lower() not in ("none", ""):
        raise ValueError(text)


def _read_union(hint: Any, text: str) -> Any:
    """Return the first reading that works; text, which takes anything, comes last."""
    for choice in sorted(get_args(hint), key=lambda choice: choice is str):
        try:
            return read_value(choice, text)
        except (ValueError, SyntaxError):
            continue
    raise ValueError(text)


def _read_literal(hint: Any, text: str) -> Any:
    for choice in get_args(hint):
        if str(choice) == text:
            return choice
    raise ValueError(text)


def _read_tuple(hint: Any, text: str) -> tuple[Any, ...]:
    """Read items with commas between them, with or without brackets."""
    inside = text.strip()
    if inside[:1] + inside[-1:] in ("()", "[]"):
        inside = inside[1:-1]
    items = [item.strip().strip("'\"") for item in inside.split(",") if item.strip()]
    kinds = get_args(hint)
    if kinds[-1:] == (Ellipsis,):
        kinds = kinds[:1] * len(items)
    return tuple(read_value(kind, item) for kind, item in zip(kinds, items, strict=True))


_READERS: dict[Any, Callable[[str], Any]] = {
    bool: _read_bool, int: int, float: float, str: str, Path: Path, type(None): _read_none,
}  # fmt: skip
_GENERIC: dict[Any, Callable[[Any, str], Any]] = {
    Union: _read_union, types.UnionType: _read_union, Literal: _read_literal, tuple: _read_tuple,
}  # fmt: skip
