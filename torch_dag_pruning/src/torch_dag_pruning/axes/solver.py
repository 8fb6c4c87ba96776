"""The solver: equalities between axis expressions, refined until all of them hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

from torch_dag_pruning.axes.bindings import Bindings, because
from torch_dag_pruning.axes.cutting import cut, inner_offsets, widths
from torch_dag_pruning.axes.expression import (
    Atom,
    Axis,
    Cause,
    Concat,
    Fixed,
    Product,
    concat,
    factors_of,
    product,
)
from torch_dag_pruning.axes.walk import groups, marks, row_marks

_Pair: TypeAlias = tuple[Axis, Axis]

#: `unify` orders a pair by kind, the kind that decides what happens first.
_RANK: Final[dict[type[Axis], int]] = {Fixed: 0, Atom: 1, Concat: 2, Product: 3}


class AxisSolver(Bindings):
    """Solves relations between axes; knows nothing about ops.

    Each step binds an atom to something of its own size, breaks expressions into strictly
    smaller ones, or freezes. So the work is bounded by the number of slots, and no occurs-check
    is needed: a part is always smaller than its whole (rule 7). Hold on to the expressions you
    were given and resolve them with `find` when you read them; later relations refine atoms.

    Attributes:
        conflicts: One entry for every place where factorisations did not fit and slots were
            frozen for it.
    """

    def __init__(self) -> None:
        """Start without atoms and relations."""
        super().__init__()
        self.conflicts: list[Cause] = []
        self._pending: list[tuple[Axis, Axis, Cause | None]] = []
        self._unifiers: dict[type[Axis], Callable[[Any, Any, Cause | None], None]] = {
            Fixed: self._unify_fixed,
            Atom: self._unify_atom,
            Concat: self._unify_concat,
            Product: self._unify_products,
        }
        self._splitters: dict[type[Axis], Callable[[Any, int, Cause | None], _Pair | None]] = {
            Fixed: self._split_fixed,
            Atom: self._split_atom,
            Concat: self._split_concat,
            Product: self._split_product,
        }

    # Equality

    def unify(self, a: Axis, b: Axis, cause: Cause | None) -> None:
        """Make two axes equal slot by slot, refining or freezing what they are made of.

        Raises:
            ValueError: The sizes differ.
        """
        if a.n != b.n:
            message = f"cannot unify axes of {a.n} and {b.n} slots: {a} and {b}"
            raise ValueError(message)
        if a is not b:
            self._pending.append((a, b, cause))
            self._settle()

    def unify_all(self, axes: Iterable[Axis], cause: Cause | None) -> None:
        """Make all the axes equal slot by slot."""
        first, *others = list(axes) or [Fixed(0)]
        for other in others:
            self.unify(first, other, cause)

    def _settle(self) -> None:
        while self._pending:
            a, b, cause = self._pending.pop()
            a, b = sorted((self.find(a), self.find(b)), key=lambda axis: _RANK[type(axis)])
            if a != b:
                self._unifiers[type(a)](a, b, cause)

    def _equate(self, left: Sequence[Axis], right: Sequence[Axis], cause: Cause | None) -> None:
        self._pending += [(a, b, cause) for a, b in zip(left, right, strict=True)]

    def _tie(self, axes: Sequence[Axis], cause: Cause | None) -> None:
        self._equate([axes[0]] * (len(axes) - 1), axes[1:], cause)

    def _unify_fixed(self, fixed: Fixed, other: Axis, cause: Cause | None) -> None:
        self.freeze(other, fixed.cause or cause)

    def _unify_atom(self, atom: Atom, other: Axis, _cause: Cause | None) -> None:
        """Bind the atom; of two atoms the younger, so that the oldest speaks for its class."""
        if isinstance(other, Atom) and other.id > atom.id:
            atom, other = other, atom
        self.bound[atom.id] = other

    def _unify_concat(self, a: Concat, b: Concat | Product, cause: Cause | None) -> None:
        ends = set(inner_offsets(a)).union(inner_offsets(b) if isinstance(b, Concat) else ())
        offsets = sorted(ends)
        self._equate(cut(self, a, offsets, cause), cut(self, b, offsets, cause), cause)

    def _unify_products(self, a: Product, b: Product, cause: Cause | None) -> None:
        left, right = a.factors[::-1], b.factors[::-1]
        for here, there in groups(_sizes(left), _sizes(right)):
            self._match(left[here], right[there], cause)

    def _match(self, left: Sequence[Axis], right: Sequence[Axis], cause: Cause | None) -> None:
        """Equate two groups of factors with the same total by refining each at the other's marks."""
        fine = self._refine(left, marks(_sizes(right)), cause)
        other = fine and self._refine(right, marks(_sizes(left)), cause)
        if fine and other:
            self._equate(fine, other, cause)
        else:
            self._conflict([*left, *right], _sizes(left), _sizes(right), cause)

    def _conflict(self, axes: Iterable[Axis], had: Sequence[int], wanted: Sequence[int], cause: Cause | None) -> Cause:
        """Record that two factorisations do not fit, and freeze `axes` for it."""
        reason = because(cause, f"factors {had[::-1]} and {wanted[::-1]} do not divide each other")
        self.conflicts.append(reason)
        for axis in axes:
            self.freeze(axis, reason)
        return reason

    # Cuts

    def cut(self, axis: Axis, offsets: Sequence[int], cause: Cause | None = None) -> list[Axis]:
        """Return the `len(offsets) + 1` consecutive pieces of `axis`; this never fails.

        A cut inside a row of a Product fixes that one slot of the outer factor. Equal
        neighbouring offsets give an empty piece.

        Raises:
            ValueError: An offset is out of range or before the previous one.
        """
        sizes = widths(offsets, axis.n)
        if min(sizes) < 0:
            message = f"offsets {list(offsets)} do not ascend from 0 to {axis.n}"
            raise ValueError(message)
        pieces = iter(cut(self, axis, sorted(set(offsets) - {0, axis.n}), cause))
        return [next(pieces) if n else Fixed(0) for n in sizes]

    # Splits into rows

    def split_right(self, axis: Axis, inner: int, cause: Cause | None) -> _Pair | None:
        """Return `axis` as (outer, inner) with `inner` slots a row, or None on a conflict.

        Nothing is changed on a conflict.

        Raises:
            ValueError: The rows do not fill the axis.
        """
        if inner < 1 or axis.n % inner:
            message = f"{axis.n} slots cannot be split into rows of {inner}"
            raise ValueError(message)
        pair = self._split(axis, inner, cause)
        self._settle()
        return pair and (self.find(pair[0]), self.find(pair[1]))

    def _split(self, axis: Axis, inner: int, cause: Cause | None) -> _Pair | None:
        axis = self.find(axis)
        if axis.n % inner:
            return None
        if inner == 1:
            return axis, Fixed(1)
        if inner == axis.n:
            return Fixed(1), axis
        return self._splitters[type(axis)](axis, inner, cause)

    def _split_fixed(self, axis: Fixed, inner: int, _cause: Cause | None) -> _Pair:
        return Fixed(axis.n // inner, axis.cause), Fixed(inner, axis.cause)

    def _split_atom(self, axis: Atom, inner: int, cause: Cause | None) -> _Pair:
        outer, row = self.divide(axis, (axis.n // inner, inner), product, cause)
        return outer, row

    def _split_product(self, axis: Product, inner: int, cause: Cause | None) -> _Pair | None:
        pieces = self._refine(axis.factors[::-1], [inner], cause)
        if pieces is None:
            return None
        row, outer = _collected(pieces, (inner, axis.n // inner))
        return outer, row

    def _split_concat(self, axis: Concat, inner: int, cause: Cause | None) -> _Pair:
        """Split the stretches of whole rows part by part, and tie all their rows (rule 4).

        A row that holds the end of a part is a stretch of its own, hence Fixed in the outer
        axis, as a later cut inside it would make it.
        """
        stretches = cut(self, axis, row_marks(inner_offsets(axis), inner, axis.n), cause)
        pairs = [self._split_stretch(stretch, inner, cause) for stretch in stretches]
        self._tie([row for _, row in pairs], cause)
        return concat(*(outer for outer, _ in pairs)), pairs[0][1]

    def _split_stretch(self, stretch: Axis, inner: int, cause: Cause | None) -> _Pair:
        """Split a stretch of whole rows; where its factors do not fit, cut it row by row."""
        stretch = self.find(stretch)
        if isinstance(stretch, Concat):
            return self._split_rows(stretch, inner, cause)
        pair = self._split(stretch, inner, cause)
        if pair is None:
            had = _sizes(factors_of(stretch)[::-1])
            self._conflict((), had, (inner, stretch.n // inner), cause)
        return pair or self._split_rows(stretch, inner, cause)

    def _split_rows(self, stretch: Axis, inner: int, cause: Cause | None) -> _Pair:
        rows = cut(self, stretch, range(inner, stretch.n, inner), cause)
        self._tie(rows, cause)
        return Fixed(len(rows), because(cause, "rows tied by a concatenation")), rows[0]

    def _refine(self, factors: Sequence[Axis], at: Sequence[int], cause: Cause | None) -> list[Axis] | None:
        """Split factors (right to left) so that all the running products `at` occur.

        Returns:
            The pieces, right to left, or None when a factor cannot be split there.
        """
        pieces: list[Axis] = []
        base = 1
        for factor in factors:
            rest, top = factor, base * factor.n
            for mark in (m for m in at if base < m < top):
                pair = None if mark % base else self._split(rest, mark // base, cause)
                if pair is None:
                    return None
                rest, piece = pair
                pieces.append(piece)
                base = mark
            pieces.append(rest)
            base = top
        return pieces

    # Reshapes

    def reshape(self, axes: Sequence[Axis], sizes: Sequence[int], cause: Cause | None) -> list[Axis]:
        """Return the axes, of the given sizes, of the row-major reshape of a tensor with `axes`.

        Positional: axes are matched by running products from the right, never by equal size
        (rule 3). A group of factors that does not fit is frozen, its neighbours are not.

        Raises:
            ValueError: The number of elements changes.
        """
        if math.prod(axis.n for axis in axes) != math.prod(sizes):
            message = f"cannot reshape {[axis.n for axis in axes]} into {list(sizes)}"
            raise ValueError(message)
        if 0 in sizes:
            return self._reshape_empty(axes, sizes, cause)
        # Fixed factors merge only where a group holds both, so that each keeps its own cause.
        factors = [factor for axis in axes for factor in factors_of(self.find(axis))][::-1]
        wanted = [n for n in reversed(sizes) if n != 1]
        made: list[Axis] = []
        for here, there in groups(_sizes(factors), wanted):
            group = factors_of(product(*factors[here][::-1]))[::-1]
            made += self._regroup(group, wanted[there], cause)
        self._settle()
        made.reverse()
        found = iter(made)
        return [self.find(next(found)) if n != 1 else Fixed(1) for n in sizes]

    def _reshape_empty(self, axes: Iterable[Axis], sizes: Iterable[int], cause: Cause | None) -> list[Axis]:
        """Freeze everything: without elements positions say nothing."""
        for axis in axes:
            self.freeze(axis, cause)
        return [Fixed(n, cause) for n in sizes]

    def _regroup(self, factors: Sequence[Axis], sizes: Sequence[int], cause: Cause | None) -> list[Axis]:
        pieces = self._refine(factors, marks(sizes), cause)
        if pieces is not None:
            return _collected(pieces, sizes)
        reason = self._conflict(factors, _sizes(factors), sizes, cause)
        return [Fixed(n, reason) for n in sizes]


def _sizes(axes: Iterable[Axis]) -> tuple[int, ...]:
    return tuple(axis.n for axis in axes)


def _collected(pieces: Sequence[Axis], sizes: Iterable[int]) -> list[Axis]:
    """Multiply consecutive pieces (right to left) together into axes of the given sizes."""
    stream = iter(pieces)
    axes: list[Axis] = []
    for size in sizes:
        axis: Axis = Fixed(1)
        while axis.n < size:
            axis = product(next(stream), axis)
        axes.append(axis)
    return axes
