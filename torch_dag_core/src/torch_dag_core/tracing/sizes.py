"""Numbers that remember the tensor sizes which they were computed from, so that no use of a size goes unseen.

Arithmetic on a `TracedInt` or `TracedFloat` gives another one, with a longer expression. Comparing it is recorded as a
`Guard`. Whatever turns it into an ordinary object (its hash, its text, ``float``) is recorded as a `Loss`.

Python has a few ways to an int's value that no subclass can see, such as ``items[n]`` and ``0.5 * n``: what these lead
to is compared between traces at different sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypeVar, overload

from torch_dag_core.graph.conditions import OPERATORS
from torch_dag_core.tracing.expressions import Expression
from torch_dag_core.tracing.namespaces import note_caches, note_scope
from torch_dag_core.tracing.texts import is_message

if TYPE_CHECKING:
    from torch_dag_core.tracing.size_log import SizeLog

Method: TypeAlias = Any
"""A method in place of one of int or float, whose overloads no single signature fits."""
T = TypeVar("T")
_LARGEST_POWER = 8
_LARGEST_SHIFT = 62


class Traced:
    """What traced ints and floats have in common.

    Attributes:
        number: The number itself; what C code reads may be another one, see `disguise`.
        elsewhere: The number that the run had which a disguised one is compared with; ``number`` in other runs.
        expression: How the number was computed.
        log: That of the trace.
        used: Whether anything was seen to read the number, other than comparisons.
        compared: Whether it was compared.
    """

    number: float
    elsewhere: float
    expression: Expression
    log: SizeLog
    used = False
    compared = False

    @classmethod
    def make(cls, number: float, elsewhere: float, expression: Expression, log: SizeLog) -> Self:
        """Return ``number`` with its expression; one that differs elsewhere shows what the log says."""
        traced = cls(number if number == elsewhere else log.shown)  # type: ignore[call-arg]
        traced.number, traced.elsewhere = number, elsewhere
        traced.expression, traced.log = expression, log
        return traced

    def lose(self, *, hides: bool = True) -> None:
        """Record that the number lives on as an ordinary object."""
        self.used = True
        self.log.lost(self.expression, hides=hides)


@overload
def ordinary(value: Traced) -> float: ...
@overload
def ordinary(value: T) -> T: ...
def ordinary(value: object) -> object:
    """Return the ordinary number in place of a traced one, which counts as used; anything else as it is."""
    if not isinstance(value, Traced):
        return value
    value.used = True
    return value.number


def expression_of(value: float) -> Expression:
    """Return the expression of a number."""
    if isinstance(value, Traced):
        return value.expression
    return int.__int__(value) if isinstance(value, int) else float.__float__(value)


def elsewhere_of(value: float) -> float:
    """Return the value that a number had in the run which a disguised one is compared with."""
    return value.elsewhere if isinstance(value, Traced) else value


def _binary(operation: str, *, swapped: bool = False) -> Method:
    """Return the method of an operator whose result is followed."""

    def method(self: Traced, other: object) -> object:
        if not isinstance(other, (int, float)):
            return NotImplemented
        operands = (other, self) if swapped else (self, other)
        value = OPERATORS[operation].function(*map(ordinary, operands))
        return self.log.follow(value, operation, *operands)

    return method


def _unary(operation: str) -> Method:
    def method(self: Traced) -> object:
        return self.log.follow(OPERATORS[operation].function(ordinary(self)), operation, self)  # type: ignore[arg-type]

    return method


def _compared(value: object) -> object:
    """Return the ordinary number; that does not count as its use, since code in C may read it after a comparison."""
    if not isinstance(value, Traced):
        return value
    value.compared = True
    return value.number


def _comparison(operation: str) -> Method:
    def method(self: Traced, other: object) -> object:
        if not isinstance(other, (int, float)):
            return NotImplemented
        outcome = OPERATORS[operation].function(_compared(self), _compared(other))
        if isinstance(other, int) or math.isfinite(other):
            self.log.compared(operation, self.expression, expression_of(other), outcome)
        return outcome

    return method


def _losing(name: str) -> Method:
    """Return the method of the ordinary number, which records the loss of each size that it is given."""

    def method(self: Traced, *others: object) -> object:
        for number in (self, *others):
            if isinstance(number, Traced):
                number.lose()
        return getattr(ordinary(self), name)(*map(ordinary, others))

    return method


def _text(name: str) -> Method:
    """Return the method of the ordinary number that gives its text, a loss unless the text is part of a message."""

    def method(self: Traced, *others: object) -> object:
        self.lose(hides=not is_message())
        return getattr(ordinary(self), name)(*others)

    return method


def _converting(kind: Callable[[float], float]) -> Method:
    """Return ``__int__`` or ``__float__``: a loss, unless the caller's namespace has a stand-in for the builtin."""

    def method(self: Traced) -> object:
        self.lose()
        note_scope(self.log.scopes, kind.__name__)
        return kind(ordinary(self))

    return method


def _itself(self: T) -> T:
    return self


class _Followed(Traced):
    """The methods that ints and floats share."""

    __add__, __radd__ = _binary("add"), _binary("add", swapped=True)
    __sub__, __rsub__ = _binary("sub"), _binary("sub", swapped=True)
    __mul__, __rmul__ = _binary("mul"), _binary("mul", swapped=True)
    __truediv__, __rtruediv__ = _binary("truediv"), _binary("truediv", swapped=True)
    __floordiv__, __rfloordiv__ = _binary("floordiv"), _binary("floordiv", swapped=True)
    __mod__, __rmod__ = _binary("mod"), _binary("mod", swapped=True)
    __eq__, __ne__ = _comparison("eq"), _comparison("ne")
    __lt__, __le__ = _comparison("lt"), _comparison("le")
    __gt__, __ge__ = _comparison("gt"), _comparison("ge")
    __abs__: Method = _unary("abs")
    __str__, __repr__, __format__ = _text("__str__"), _text("__repr__"), _text("__format__")

    def __hash__(self) -> int:
        note_caches(self.log.scopes)
        self.lose()
        return hash(self.number)

    __int__, __float__ = _converting(int), _converting(float)
    __rpow__, as_integer_ratio, __getnewargs__ = map(_losing, ("__rpow__", "as_integer_ratio", "__getnewargs__"))
    __pos__: Method = _itself
    conjugate: Method = _itself
    __copy__: Method = _itself
    real: Method = property(_itself)

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __neg__(self) -> Method:
        return self * -1

    def __bool__(self) -> bool:
        return bool(self != 0)

    def __divmod__(self, other: float) -> Method:
        return self // other, self % other

    def __rdivmod__(self, other: float) -> Method:
        return other // self, other % self

    def __pow__(self, other: float, modulus: int | None = None) -> Method:
        if modulus is None and type(other) is int and 0 < other <= _LARGEST_POWER:
            return math.prod([self] * other)
        numbers: list[Method] = list(map(ordinary, (self, other, modulus)))
        value: Method = pow(*numbers)
        if modulus is None and type(value) is float:
            operands: list[Method] = [self, other]
            return self.log.follow(value, "power", *operands)
        self.lose()
        return value


class TracedInt(_Followed, int):
    """An int with the expression it was computed by."""

    __and__, __rand__ = _binary("and"), _binary("and", swapped=True)
    __or__, __ror__ = _binary("or"), _binary("or", swapped=True)
    __xor__, __rxor__ = _binary("xor"), _binary("xor", swapped=True)
    __rlshift__, __rrshift__, __index__ = map(_losing, ("__rlshift__", "__rrshift__", "__index__"))
    __trunc__: Method = _itself
    __floor__: Method = _itself
    __ceil__: Method = _itself
    numerator: Method = property(_itself)
    bit_length, bit_count, to_bytes = _unary("bit_length"), _losing("bit_count"), _losing("to_bytes")

    def __invert__(self) -> Method:
        return self * -1 - 1

    def __lshift__(self, by: int) -> Method:
        return self * 2**by if _is_shift(by) else _losing("__lshift__")(self, by)

    def __rshift__(self, by: int) -> Method:
        return self // 2**by if _is_shift(by) else _losing("__rshift__")(self, by)

    def __round__(self, digits: Method = None) -> Method:
        return self if digits is None else _losing("__round__")(self, digits)


class TracedFloat(_Followed, float):
    """A float with the expression it was computed by."""

    __trunc__, __floor__, __ceil__ = map(_unary, ("trunc", "floor", "ceil"))
    is_integer, hex = _losing("is_integer"), _losing("hex")

    def __round__(self, digits: Method = None) -> Method:
        if digits is not None:
            return _losing("__round__")(self, digits)
        return self.log.follow(round(ordinary(self)), "round", self)


KINDS: dict[type, type[TracedInt | TracedFloat]] = {int: TracedInt, float: TracedFloat}


def _is_shift(by: object) -> bool:
    return type(by) is int and 0 <= by <= _LARGEST_SHIFT
