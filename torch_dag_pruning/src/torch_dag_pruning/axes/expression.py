"""Axis expressions: descriptions of one dimension of a tensor.

An expression denotes a vector of slots, the positions along the dimension. `Fixed` slots cannot
be removed. The slots of an `Atom` can be removed one by one. A `Product` is the row-major
flattening of several dimensions into one, as `reshape` makes it. A `Concat` is what `cat` makes.
Sizes, masks, lists of kept positions and costs are all computed by one fold over an expression
(``docs/axis-algebra.md``, A8).

Build compound expressions only with `product` and `concat`, which return the canonical form (A1):
a `Product` or `Concat` has at least two children, and none of its own kind. A factor of a Product
has at most half of its slots and the two kinds alternate, so an expression of n slots is nested
at most about 2 log2(n) levels deep.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cause:
    """Why slots cannot be removed: the vertex and the op that fixed them, and a reason in words."""

    vertex: str
    op: str
    reason: str

    def __str__(self) -> str:
        """Return `vertex (op): reason`."""
        return f"{self.vertex} ({self.op}): {self.reason}"


@dataclass(frozen=True, slots=True)
class Fixed:
    """`n` slots that cannot be removed. Equality ignores the cause."""

    n: int
    cause: Cause | None = field(default=None, compare=False)

    @property
    def children(self) -> tuple[Axis, ...]:
        """Return nothing: a leaf."""
        return ()

    def __str__(self) -> str:
        """Return the text form, such as `3`."""
        return str(self.n)


@dataclass(frozen=True, slots=True)
class Atom:
    """`n` slots, at least two, that can be kept or removed one by one. Equality ignores the name."""

    id: int
    n: int
    name: str = field(default="", compare=False)

    @property
    def children(self) -> tuple[Axis, ...]:
        """Return nothing: a leaf."""
        return ()

    def __str__(self) -> str:
        """Return the text form, such as `a7:64`."""
        return f"a{self.id}:{self.n}"


@dataclass(frozen=True, slots=True)
class Product:
    """The row-major flattening of several factors; build it with `product`."""

    factors: tuple[Axis, ...]
    n: int

    @property
    def children(self) -> tuple[Axis, ...]:
        """Return the factors, outermost first."""
        return self.factors

    def __str__(self) -> str:
        """Return the text form, such as `(3*a1:8*a2:64)`."""
        return fold(self, _TEXT)


@dataclass(frozen=True, slots=True)
class Concat:
    """Several parts, one after the other; build it with `concat`."""

    parts: tuple[Axis, ...]
    n: int

    @property
    def children(self) -> tuple[Axis, ...]:
        """Return the parts in order."""
        return self.parts

    def __str__(self) -> str:
        """Return the text form, such as `[a1:8+4]`."""
        return fold(self, _TEXT)


Axis: TypeAlias = Fixed | Atom | Product | Concat


def product(*axes: Axis) -> Axis:
    """Return the canonical row-major flattening of `axes`; the last one varies fastest.

    Nested products are flattened, `Fixed(1)` is dropped, and neighbouring Fixed factors are merged
    under the first cause.
    """
    factors: list[Axis] = []
    for factor in (f for axis in axes for f in factors_of(axis)):
        last = factors[-1] if factors else None
        if isinstance(last, Fixed) and isinstance(factor, Fixed):
            factors[-1] = Fixed(last.n * factor.n, last.cause or factor.cause)
        else:
            factors.append(factor)
    return _collapsed_product(factors)


def factors_of(axis: Axis) -> tuple[Axis, ...]:
    """Return the factors of an axis, outermost first; `Fixed(1)` has none."""
    if isinstance(axis, Product):
        return axis.factors
    return () if axis.n == 1 else (axis,)


def _collapsed_product(factors: list[Axis]) -> Axis:
    total = functools.reduce(operator.mul, (f.n for f in factors), 1)
    if total <= 1:
        return Fixed(total)
    return factors[0] if len(factors) == 1 else Product(tuple(factors), total)


def concat(*axes: Axis) -> Axis:
    """Return the canonical concatenation of `axes`.

    Nested concatenations are flattened, empty parts are dropped, and k equal neighbours become
    `product(Fixed(k), part)`. In particular, neighbouring Fixed parts are merged under the first
    cause.
    """
    parts: list[Axis] = []
    for axis in axes:
        _append(parts, parts_of(axis))
    return _collapsed_concat(parts)


def _append(parts: list[Axis], more: tuple[Axis, ...]) -> None:
    """Extend `parts` in place; both are canonical, so only the two parts at the seam can merge."""
    merged = _merged(parts[-1], more[0]) if parts and more else None
    if merged is not None:
        parts[-1], more = merged, more[1:]
    parts.extend(more)


def _merged(left: Axis, right: Axis) -> Axis | None:
    """Return two neighbours as repetitions of one part, or None if they are not."""
    (count, part), (other_count, other_part) = _copies(left), _copies(right)
    if part != other_part:
        return None
    cause = count.cause or other_count.cause
    return product(Fixed(count.n + other_count.n, cause), part)


def _copies(part: Axis) -> tuple[Fixed, Axis]:
    """Return (count, part) for a repeated part; Fixed(n) is Fixed(1) repeated n times."""
    if isinstance(part, Fixed):
        return part, Fixed(1)
    if isinstance(part, Product) and isinstance(first := part.factors[0], Fixed):
        return first, product(*part.factors[1:])
    return Fixed(1), part


def parts_of(axis: Axis) -> tuple[Axis, ...]:
    """Return the parts of an axis in order; an empty axis has none."""
    if isinstance(axis, Concat):
        return axis.parts
    return (axis,) if axis.n else ()


def _collapsed_concat(parts: list[Axis]) -> Axis:
    if not parts:
        return Fixed(0)
    return parts[0] if len(parts) == 1 else Concat(tuple(parts), sum(p.n for p in parts))


@dataclass(frozen=True, slots=True)
class Interpretation(Generic[T]):
    """The value that `fold` computes for each kind of expression, from the values of its children."""

    fixed: Callable[[Fixed], T]
    atom: Callable[[Atom], T]
    product: Callable[[list[T]], T]
    concat: Callable[[list[T]], T]


def fold(axis: Axis, meaning: Interpretation[T]) -> T:
    """Evaluate `axis` bottom-up, in one pass and without recursion."""
    combine: dict[type, Callable[[list[T]], T]] = {
        Product: meaning.product,
        Concat: meaning.concat,
    }
    leaf: dict[type, Callable[[Any], T]] = {Fixed: meaning.fixed, Atom: meaning.atom}
    values: list[T] = []
    for node in _leaves_first(axis):
        if node.children:
            first = len(values) - len(node.children)
            values[first:] = [combine[type(node)](values[first:])]
        else:
            values.append(leaf[type(node)](node))
    return values[0]


def _leaves_first(axis: Axis) -> Iterable[Axis]:
    stack = [axis]
    order: list[Axis] = []
    while stack:
        node = stack.pop()
        order.append(node)
        stack.extend(node.children)
    return reversed(order)


def size(axis: Axis, counts: Mapping[int, T]) -> int | T:
    """Return how many slots of `axis` are left when each atom keeps `counts[atom.id]` of its slots.

    Args:
        axis: A resolved expression.
        counts: Numbers of kept slots by atom id: ints, or torch scalars. The result is a
            polynomial in them, and differentiable if they are torch scalars.
    """
    numbers: Interpretation[Any] = Interpretation(
        fixed=lambda fixed: fixed.n,
        atom=lambda atom: counts[atom.id],
        product=lambda values: functools.reduce(operator.mul, values),
        concat=lambda values: functools.reduce(operator.add, values),
    )
    result: int | T = fold(axis, numbers)
    return result


def atoms(axis: Axis) -> list[Atom]:
    """Return the distinct atoms of a resolved expression, in order of first appearance."""
    if isinstance(axis, (Fixed, Atom)):
        return [axis] if isinstance(axis, Atom) else []
    found = (node for node in _leaves_first(axis) if isinstance(node, Atom))
    return list(dict.fromkeys(found))


_TEXT: Interpretation[str] = Interpretation(
    fixed=str,
    atom=str,
    product=lambda texts: f"({'*'.join(texts)})",
    concat=lambda texts: f"[{'+'.join(texts)}]",
)
