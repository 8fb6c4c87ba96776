"""Values of a JSON document with their paths; all access is checked."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, NoReturn

from torch_dag_core.errors import SerializationError
from torch_dag_core.graph.values import decode

# The errors that decoding and building raise for invalid data.
BAD_DATA = (
    ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, AttributeError, AssertionError, MemoryError,
)  # fmt: skip


class Node:
    """One JSON value of the document and its path there."""

    __slots__ = ("_key", "_parent", "value")

    def __init__(self, value: Any, key: str, parent: Node | None = None) -> None:
        self.value = value
        self._key = key
        self._parent = parent

    @property
    def path(self) -> str:
        """The path of the value, such as ``graph document.modules[3].config``; computed for messages only."""
        keys, node = [self._key], self._parent
        while node is not None:
            keys.append(node._key)
            node = node._parent
        return "".join(reversed(keys))

    def fail(self, message: str) -> NoReturn:
        """Raise the `SerializationError` for this place."""
        text = f"{self.path} {message}; the file is damaged or was changed by another program"
        raise SerializationError(text)

    def _expect(self, kind: type, what: str) -> Any:
        if type(self.value) is not kind:
            self.fail(f"must be {what}, not {self.value!r:.60}")
        return self.value

    def text(self) -> str:
        """Return a string."""
        value: str = self._expect(str, "a string")
        return value

    def flag(self) -> bool:
        """Return a boolean."""
        value: bool = self._expect(bool, "true or false")
        return value

    def integer(self, below: int | None = None) -> int:
        """Return an integer from 0 to ``below`` exclusive."""
        value: int = self._expect(int, "an integer")
        if value < 0 or (below is not None and value >= below):
            self.fail(f"must lie in 0..{'' if below is None else below - 1}, not {value!r:.60}")
        return value

    def items(self) -> list[Node]:
        """Return the elements of a list."""
        return [Node(item, f"[{i}]", self) for i, item in enumerate(self._expect(list, "a list"))]

    def table(self) -> dict[str, Node]:
        """Return the values of an object with free keys."""
        return {key: Node(item, f".{key:.60}", self) for key, item in self._expect(dict, "an object").items()}

    def fields(self, *required: str, optional: Iterable[str] = ()) -> dict[str, Node]:
        """Return the values of an object with these keys and no other."""
        table = self.table()
        missing = [name for name in required if name not in table]
        unknown = sorted(table.keys() - {*required, *optional})
        if missing or unknown:
            self.fail(f"has {f'no {missing[0]!r}' if missing else f'an unknown field {unknown[0]!r:.60}'}")
        return table

    def constant(self) -> Any:
        """Return the constant that the value encodes (`torch_dag_core.graph.values`)."""
        try:
            return decode(self.value)
        except BAD_DATA as error:
            message = f"{self.path} is not the JSON form of a constant: {self.value!r:.60}"
            raise SerializationError(message) from error


def parse(text: str, path: str) -> Node:
    """Parse strict JSON: no duplicate keys, no numbers that are not finite.

    Raises:
        SerializationError: ``text`` is something else.
    """
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_float=_finite,
        )  # fmt: skip
    except (ValueError, RecursionError) as error:
        message = f"{path} is not valid JSON ({error}); the file is damaged"
        raise SerializationError(message) from error
    return Node(value, path)


def to_text(document: Any) -> str:
    """Return the one JSON text of a document: sorted keys, no spaces, ASCII."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        message = "an object has a key twice"
        raise ValueError(message)
    return table


def _refuse_constant(name: str) -> NoReturn:
    message = f"{name} is not JSON"
    raise ValueError(message)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        message = f"the number {text:.40} is too large"
        raise ValueError(message)
    return value
