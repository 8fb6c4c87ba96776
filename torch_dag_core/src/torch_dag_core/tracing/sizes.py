"""Integers that remember which tensor size they came from, so that decisions taken on sizes are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Guard(NamedTuple):
    """A comparison that the model made on sizes, and how it came out.

    ``condition`` is ``(operator, left, right)``; leaves are ints and ``("size", node name, dim)``.
    """

    condition: tuple[Any, ...]
    outcome: bool
    source: str


class TracedInt(int):
    """An int with the expression it was computed by; comparing it appends a `Guard` to the trace's log."""

    expression: Any
    log: Callable[[tuple[Any, ...] | None, bool], None]

    @classmethod
    def make(cls, value: int, expression: Any, log: Callable[[tuple[Any, ...] | None, bool], None]) -> TracedInt:
        """Return ``value`` with its expression."""
        traced = cls(value)
        traced.expression, traced.log = expression, log
        return traced

    def _derive(self, operator: str, other: Any, value: Any, *, swapped: bool = False) -> Any:
        if type(value) is not int or not isinstance(other, int):
            return value
        operands = (_expression(other), self.expression) if swapped else (self.expression, _expression(other))
        return TracedInt.make(value, (operator, *operands), self.log)

    def _compare(self, operator: str, other: Any, outcome: Any) -> Any:
        if isinstance(outcome, bool) and isinstance(other, (int, float)):
            self.log((operator, self.expression, _expression(other)), outcome)
        return outcome

    def __add__(self, other: Any) -> Any:
        return self._derive("add", other, int.__add__(self, other))

    def __radd__(self, other: Any) -> Any:
        return self._derive("add", other, int.__radd__(self, other), swapped=True)

    def __sub__(self, other: Any) -> Any:
        return self._derive("sub", other, int.__sub__(self, other))

    def __rsub__(self, other: Any) -> Any:
        return self._derive("sub", other, int.__rsub__(self, other), swapped=True)

    def __mul__(self, other: Any) -> Any:
        return self._derive("mul", other, int.__mul__(self, other))

    def __rmul__(self, other: Any) -> Any:
        return self._derive("mul", other, int.__rmul__(self, other), swapped=True)

    def __floordiv__(self, other: Any) -> Any:
        return self._derive("floordiv", other, int.__floordiv__(self, other))

    def __rfloordiv__(self, other: Any) -> Any:
        return self._derive("floordiv", other, int.__rfloordiv__(self, other), swapped=True)

    def __mod__(self, other: Any) -> Any:
        return self._derive("mod", other, int.__mod__(self, other))

    def __rmod__(self, other: Any) -> Any:
        return self._derive("mod", other, int.__rmod__(self, other), swapped=True)

    def _lose(self, value: Any) -> Any:
        """Note that the size lives on as a number whose origin is not known."""
        self.log(None, True)  # noqa: FBT003
        return value

    def __int__(self) -> int:
        return self._lose(int.__int__(self))  # type: ignore[no-any-return]

    def __float__(self) -> float:
        return self._lose(int.__float__(self))  # type: ignore[no-any-return]

    def __truediv__(self, other: Any) -> Any:
        return self._lose(int.__truediv__(self, other))

    def __rtruediv__(self, other: Any) -> Any:
        return self._lose(int.__rtruediv__(self, other))

    def __pow__(self, other: Any, *modulus: Any) -> Any:
        return self._lose(int.__pow__(self, other, *modulus))

    def __neg__(self) -> Any:
        return self._derive("mul", -1, int.__neg__(self))

    def __eq__(self, other: object) -> Any:
        return self._compare("eq", other, int.__eq__(self, other))

    def __ne__(self, other: object) -> Any:
        return self._compare("ne", other, int.__ne__(self, other))

    def __lt__(self, other: Any) -> Any:
        return self._compare("lt", other, int.__lt__(self, other))

    def __le__(self, other: Any) -> Any:
        return self._compare("le", other, int.__le__(self, other))

    def __gt__(self, other: Any) -> Any:
        return self._compare("gt", other, int.__gt__(self, other))

    def __ge__(self, other: Any) -> Any:
        return self._compare("ge", other, int.__ge__(self, other))

    def __bool__(self) -> bool:
        return bool(self._compare("ne", 0, int.__ne__(self, 0)))

    __hash__ = int.__hash__


def _expression(value: float) -> Any:
    return value.expression if isinstance(value, TracedInt) else value


def plain(value: Any) -> Any:
    """Return ``value`` with every `TracedInt` inside replaced by an ordinary int; containers are rebuilt."""
    kind = type(value)
    if kind is TracedInt:
        return int.__int__(value)
    if kind is tuple or kind is list:
        return kind([plain(item) for item in value])
    if kind is dict:
        return {key: plain(item) for key, item in value.items()}
    if kind is slice:
        return slice(plain(value.start), plain(value.stop), plain(value.step))
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(plain(item) for item in value)
    return value
