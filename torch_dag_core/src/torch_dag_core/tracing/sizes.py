"""Numbers that remember the tensor sizes which they were computed from, so that no use of a size goes unseen.

Arithmetic on a `TracedInt` or `TracedFloat` gives another one, with a longer expression. Comparing it is recorded as a
`Guard`. Whatever turns it into an ordinary object (its hash, its text, ``float``) is recorded as a `Loss`.

An expression is a number, an operation of `torch_dag_core.graph.conditions` on expressions, or a leaf
``("size", node name, dim)``. Python has a few ways to an int's value that no subclass can see, such as ``items[n]`` and
``0.5 * n``: what these lead to is compared between traces at different sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from torch_dag_core.graph.conditions import NEGATED, OPERATORS

_MOST_OPERATIONS = 100
_DEEPEST = 25


class Guard(NamedTuple):
    """A comparison that the model made on sizes, and how it came out; ``condition`` is ``(operator, left, right)``."""

    condition: tuple[Any, ...]
    outcome: bool
    source: str

    @property
    def holding(self) -> tuple[Any, ...]:
        """The condition that was true."""
        comparison, left, right = self.condition
        return (comparison if self.outcome else NEGATED[comparison], left, right)


class Loss(NamedTuple):
    """A value computed from sizes that became an ordinary object; what becomes of it is not known.

    ``hides`` tells that it may decide anything; else it is most likely the text of a message.
    """

    expression: Any
    value: Any
    source: str
    hides: bool = True


class SizeLog:
    """How one trace used sizes.

    Attributes:
        guards: The comparisons, in order.
        losses: The conversions to ordinary objects, in order.
        returned: The numbers computed from sizes that the model returned.
        scopes: Global namespaces whose ``int`` and ``float`` were called on sizes; see `following`.
        used: Whether the model asked for any size.
    """

    def __init__(self, is_paused: Callable[[], bool], source: Callable[[], str]) -> None:
        self.guards: list[Guard] = []
        self.losses: list[Loss] = []
        self.returned: list[Loss] = []
        self.scopes: list[dict[str, Any]] = []
        self.used = False
        self._is_paused, self._source = is_paused, source
        self._computed: list[tuple[Traced, str]] = []

    def size(self, value: int, node: str, dim: int) -> TracedInt:
        """Return the size of a recorded tensor."""
        self.used = True
        return TracedInt.make(value, ("size", node, dim), self)  # type: ignore[no-any-return]

    def compared(self, condition: tuple[Any, ...], outcome: bool) -> None:  # noqa: FBT001
        """Record a comparison."""
        if not self._is_paused():
            self.guards.append(Guard(condition, outcome, self._source()))

    def lost(self, expression: Any, value: Any, *, hides: bool = True) -> None:
        """Record that a value lives on as an ordinary object."""
        if not self._is_paused():
            self.losses.append(Loss(expression, value, self._source(), hides))

    def follow(self, value: Any, operation: str, *operands: Any) -> Any:
        """Return ``value``, which an operation gave for these operands, as a number that remembers it."""
        expression = _simplified(operation, *map(expression_of, operands))
        if _is_large(expression):
            for operand in operands:
                if isinstance(operand, Traced):
                    self.lost(operand.expression, plain(operand))
            return value
        kind = _KINDS.get(type(value))
        if kind is None:
            return value
        result = kind.make(value, expression, self)
        self._computed.append((result, self._source()))
        return result

    def unused(self) -> list[Loss]:
        """Return the results of arithmetic that nothing used in a way that can be seen: as an index, perhaps."""
        idle = [(number, source) for number, source in self._computed if not number.used]
        return [Loss(number.expression, plain(number), source) for number, source in idle]


def expression_of(value: Any) -> Any:
    """Return the expression of a number."""
    if isinstance(value, Traced):
        return value.expression
    return float.__float__(value) if isinstance(value, float) else int.__int__(value)


_NEUTRAL = {"add": 0, "sub": 0, "mul": 1, "floordiv": 1}


def _simplified(operation: str, *operands: Any) -> Any:
    """Return the expression of an operation, without it where it changes nothing."""
    neutral = _NEUTRAL.get(operation)
    if neutral is None:
        return (operation, *operands)
    left, right = operands
    if type(right) is int and right == neutral:
        return left
    swaps = operation in ("add", "mul") and type(left) is int and left == neutral
    return right if swaps else (operation, left, right)


def _is_large(expression: Any) -> bool:
    """Tell whether an expression is too large for a condition that is checked at every call."""
    count, level = 0, [expression]
    for _ in range(_DEEPEST):
        level = [operand for item in level if isinstance(item, tuple) and item[0] != "size" for operand in item[1:]]
        count += len(level)
        if not level or count > _MOST_OPERATIONS:
            break
    return bool(level)


def _binary(operation: str, *, swapped: bool = False) -> Any:
    """Return the method of an operator whose result is followed."""

    def method(self: Traced, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        operands = (other, self) if swapped else (self, other)
        value = OPERATORS[operation].function(*map(plain, operands))
        return self.log.follow(value, operation, *operands)

    return method


def _unary(operation: str) -> Any:
    def method(self: Traced) -> Any:
        return self.log.follow(OPERATORS[operation].function(plain(self)), operation, self)

    return method


def _comparison(operation: str) -> Any:
    def method(self: Traced, other: object) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        outcome = OPERATORS[operation].function(plain(self), plain(other))
        if isinstance(other, int) or math.isfinite(plain(other)):
            self.log.compared((operation, self.expression, expression_of(other)), outcome)
        return outcome

    return method


def _losing(name: str, *, hides: bool = True) -> Any:
    """Return the method of the plain number, which records the loss of each size that it is given."""

    def method(self: Traced, *others: Any) -> Any:
        for number in (self, *others):
            if isinstance(number, Traced):
                self.log.lost(number.expression, plain(number), hides=hides)
        value = plain(self)
        return getattr(value, name)(*map(plain, others))

    return method


def _converting(kind: type) -> Any:
    """Return ``__int__`` or ``__float__``: a loss, unless the caller's namespace has a stand-in for the builtin."""

    def method(self: Traced) -> Any:
        self.log.lost(self.expression, plain(self))
        from torch_dag_core.tracing.following import note_scope

        note_scope(self.log.scopes, kind.__name__)
        return kind(plain(self))

    return method


def _itself(self: Any) -> Any:
    return self


class Traced:
    """What traced ints and floats have in common."""

    expression: Any
    log: SizeLog
    used = False

    @classmethod
    def make(cls, value: Any, expression: Any, log: SizeLog) -> Any:
        """Return ``value`` with its expression."""
        traced = cls(value)  # type: ignore[call-arg]
        traced.expression, traced.log = expression, log
        return traced

    __add__, __radd__ = _binary("add"), _binary("add", swapped=True)
    __sub__, __rsub__ = _binary("sub"), _binary("sub", swapped=True)
    __mul__, __rmul__ = _binary("mul"), _binary("mul", swapped=True)
    __truediv__, __rtruediv__ = _binary("truediv"), _binary("truediv", swapped=True)
    __floordiv__, __rfloordiv__ = _binary("floordiv"), _binary("floordiv", swapped=True)
    __mod__, __rmod__ = _binary("mod"), _binary("mod", swapped=True)
    __eq__, __ne__ = _comparison("eq"), _comparison("ne")
    __lt__, __le__ = _comparison("lt"), _comparison("le")
    __gt__, __ge__ = _comparison("gt"), _comparison("ge")
    __abs__, __pos__ = _unary("abs"), _itself
    # Texts are messages nearly always: assertions make theirs even where they hold.
    __str__, __repr__ = _losing("__str__", hides=False), _losing("__repr__", hides=False)
    __hash__, __format__ = _losing("__hash__"), _losing("__format__", hides=False)
    __int__, __float__ = _converting(int), _converting(float)
    __rpow__, as_integer_ratio, __getnewargs__ = map(_losing, ("__rpow__", "as_integer_ratio", "__getnewargs__"))
    real = property(_itself)
    conjugate = __copy__ = _itself

    def __deepcopy__(self, _: Any) -> Any:
        return self

    def __neg__(self) -> Any:
        return self * -1

    def __bool__(self) -> bool:
        return bool(self != 0)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> Any:
        return other // self, other % self

    def __pow__(self, other: Any, modulus: Any = None) -> Any:
        if modulus is None and type(other) is int and 0 < other <= _LARGEST_POWER:
            return math.prod([self] * other)
        value = pow(plain(self), plain(other), plain(modulus))
        if modulus is None and type(value) is float:
            return self.log.follow(value, "power", self, other)
        self.log.lost(self.expression, plain(self))
        return value


_LARGEST_POWER = 8
_LARGEST_SHIFT = 62


class TracedInt(Traced, int):
    """An int with the expression it was computed by."""

    __and__, __rand__ = _binary("and"), _binary("and", swapped=True)
    __or__, __ror__ = _binary("or"), _binary("or", swapped=True)
    __xor__, __rxor__ = _binary("xor"), _binary("xor", swapped=True)
    __rlshift__, __rrshift__, __index__ = map(_losing, ("__rlshift__", "__rrshift__", "__index__"))
    __trunc__ = __floor__ = __ceil__ = _itself
    bit_length, numerator = _unary("bit_length"), property(_itself)
    bit_count, to_bytes = _losing("bit_count"), _losing("to_bytes")

    def __invert__(self) -> Any:
        return self * -1 - 1

    def __lshift__(self, by: Any) -> Any:
        return self * 2**by if _is_shift(by) else _losing("__lshift__")(self, by)

    def __rshift__(self, by: Any) -> Any:
        return self // 2**by if _is_shift(by) else _losing("__rshift__")(self, by)

    def __round__(self, digits: Any = None) -> Any:
        return self if digits is None else _losing("__round__")(self, digits)


class TracedFloat(Traced, float):
    """A float with the expression it was computed by."""

    __trunc__, __floor__, __ceil__ = map(_unary, ("trunc", "floor", "ceil"))
    is_integer, hex = _losing("is_integer"), _losing("hex")

    def __round__(self, digits: Any = None) -> Any:
        if digits is not None:
            return _losing("__round__")(self, digits)
        return self.log.follow(round(plain(self)), "round", self)


def _is_shift(by: Any) -> bool:
    return type(by) is int and 0 <= by <= _LARGEST_SHIFT


class SettledInt(int):
    """A recorded constant that was computed from sizes: an ordinary int in all but its ``expression``."""

    expression: Any


class SettledFloat(float):
    """The same for a float."""

    expression: Any


_KINDS: dict[type, Any] = {int: TracedInt, float: TracedFloat}
PLAIN: dict[type, Callable[[Any], Any]] = {
    TracedInt: lambda number: int.__int__(_use(number)), TracedFloat: lambda number: float.__float__(_use(number)),
    SettledInt: int.__int__, SettledFloat: float.__float__,
}  # fmt: skip


def plain(value: Any) -> Any:
    """Return ``value`` with every number inside that remembers an expression replaced by an ordinary one."""
    return _replaced(value, PLAIN)


def settled(value: Any) -> Any:
    """Return ``value`` with every traced number inside replaced by one that keeps its expression and logs no more."""
    return _replaced(value, SETTLING)


def _use(number: Traced) -> Any:
    number.used = True
    return number


def _settle(kind: Any, value: Any, expression: Any) -> Any:
    result = kind(value)
    result.expression = expression
    return result


SETTLING: dict[type, Callable[[Any], Any]] = {
    TracedInt: lambda number: _settle(SettledInt, int.__int__(_use(number)), number.expression),
    TracedFloat: lambda number: _settle(SettledFloat, float.__float__(_use(number)), number.expression),
}


def _replaced(value: Any, numbers: dict[type, Callable[[Any], Any]]) -> Any:
    """Return ``value`` with its numbers of these types replaced; containers are rebuilt."""
    kind = type(value)
    if kind in numbers:
        return numbers[kind](value)
    if kind is tuple or kind is list:
        return kind([_replaced(item, numbers) for item in value])
    if kind is dict:
        return {key: _replaced(item, numbers) for key, item in value.items()}
    if kind is slice:
        return slice(*(_replaced(part, numbers) for part in (value.start, value.stop, value.step)))
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(_replaced(item, numbers) for item in value)
    return value


_SIZE = torch.Size


class TracedShape(tuple[int, ...]):
    """The sizes of a recorded tensor; passes for a `torch.Size`, whose ``numel`` would lose them."""

    __slots__ = ()

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return _SIZE

    def numel(self) -> Any:
        """Return the number of elements."""
        return math.prod(self)

    def __getitem__(self, place: Any) -> Any:
        found = tuple.__getitem__(self, place)
        return TracedShape(found) if isinstance(place, slice) else found

    def __repr__(self) -> str:
        return f"torch.Size({list(plain(tuple(self)))})"

    def __add__(self, other: Any) -> Any:
        return TracedShape(tuple.__add__(self, tuple(other)))

    def __mul__(self, times: Any) -> Any:
        return TracedShape(tuple.__mul__(self, times))
