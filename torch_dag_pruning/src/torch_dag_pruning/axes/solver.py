"""The solver: takes equalities between axis expressions and refines atoms until all of them hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

from torch_dag_pruning.axes.bindings import Bindings, with_reason
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
from torch_dag_pruning.axes.running_products import matching_stretches, row_boundaries, running_products

_Pair: TypeAlias = tuple[Axis, Axis]

#: `unify` sorts a pair by kind; the kind of the first decides how the two are made equal.
_RANK: Final[dict[type[Axis], int]] = {Fixed: 0, Atom: 1, Concat: 2, Product: 3}


class AxisSolver(Bindings):
    """Solves equalities between axes; knows nothing about ops.

    Each step binds an atom to an expression of the same size, replaces an equality by equalities
    between strictly smaller expressions, or freezes slots. The number of steps is therefore bounded
    by the number of slots, and no occurs check is needed, because a part is always smaller than its
    whole (``docs/axis-algebra.md``, A7). Later relations may refine the atoms in an expression, so
    keep the expression and resolve it with `find` whenever you read it (A9).

    Attributes:
        conflicts: The cause of each freeze that two factorisations without a common refinement made
            necessary.
    """

    def __init__(self) -> None:
        """Create a solver without atoms and relations."""
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
        """Make two axes equal slot by slot; refines or freezes the atoms in them.

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
            a, b = self.find(a), self.find(b)
            if a is b or a == b:
                continue
            if _RANK[type(a)] > _RANK[type(b)]:
                a, b = b, a
            self._unifiers[type(a)](a, b, cause)

    def _equate(self, left: Sequence[Axis], right: Sequence[Axis], cause: Cause | None) -> None:
        self._pending += [(a, b, cause) for a, b in zip(left, right, strict=True)]

    def _tie(self, axes: Sequence[Axis], cause: Cause | None) -> None:
        self._equate([axes[0]] * (len(axes) - 1), axes[1:], cause)

    def _unify_fixed(self, fixed: Fixed, other: Axis, cause: Cause | None) -> None:
        self.freeze(other, fixed.cause or cause)

    def _unify_atom(self, atom: Atom, other: Axis, _cause: Cause | None) -> None:
        """Bind the atom; of two atoms the younger, so that the oldest atom represents its class."""
        if isinstance(other, Atom) and other.id > atom.id:
            atom, other = other, atom
        self.bound[atom.id] = other

    def _unify_concat(self, a: Concat, b: Concat | Product, cause: Cause | None) -> None:
        ends = set(inner_offsets(a)).union(inner_offsets(b) if isinstance(b, Concat) else ())
        offsets = sorted(ends)
        self._equate(cut(self, a, offsets, cause), cut(self, b, offsets, cause), cause)

    def _unify_products(self, a: Product, b: Product, cause: Cause | None) -> None:
        left, right = a.factors[::-1], b.factors[::-1]
        for here, there in matching_stretches(_sizes(left), _sizes(right)):
            self._match(left[here], right[there], cause)

    def _match(self, left: Sequence[Axis], right: Sequence[Axis], cause: Cause | None) -> None:
        """Equate two lists of factors with the same product: split each so that both have the same sizes."""
        refined_left = self._refine(left, running_products(_sizes(right)), cause)
        refined_right = refined_left and self._refine(right, running_products(_sizes(left)), cause)
        if refined_left and refined_right:
            self._equate(refined_left, refined_right, cause)
        else:
            self._conflict([*left, *right], _sizes(left), _sizes(right), cause)

    def _conflict(self, axes: Iterable[Axis], had: Sequence[int], wanted: Sequence[int], cause: Cause | None) -> Cause:
        """Record that two factorisations have no common refinement, and freeze `axes` (A6)."""
        reason = with_reason(cause, f"factors {had[::-1]} and {wanted[::-1]} do not divide each other")
        self.conflicts.append(reason)
        for axis in axes:
            self.freeze(axis, reason)
        return reason

    # Cuts

    def cut(self, axis: Axis, offsets: Sequence[int], cause: Cause | None = None) -> list[Axis]:
        """Cut `axis` at the offsets and return its `len(offsets) + 1` consecutive pieces; always succeeds (A3).

        A cut inside a row of a Product fixes the slot of the outer factor that the row belongs to.
        Two equal neighbouring offsets give an empty piece.

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
        """Return `axis` as two factors (outer, inner), the inner one of `inner` slots.

        Returns:
            The factors, or None if the factors of a Product cannot be split there; then nothing is
            changed.

        Raises:
            ValueError: `inner` does not divide the size of the axis.
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
        row, outer = _multiply_pieces(pieces, (inner, axis.n // inner))
        return outer, row

    def _split_concat(self, axis: Concat, inner: int, cause: Cause | None) -> _Pair:
        """Split a concatenation into rows: each stretch of whole rows on its own, with all rows tied (A5).

        A row with a seam between two parts inside it is a stretch of its own. Its slot in the outer
        axis is therefore Fixed, as a cut inside it would make it anyway.
        """
        stretches = cut(self, axis, row_boundaries(inner_offsets(axis), inner, axis.n), cause)
        pairs = [self._split_stretch(stretch, inner, cause) for stretch in stretches]
        self._tie([row for _, row in pairs], cause)
        return concat(*(outer for outer, _ in pairs)), pairs[0][1]

    def _split_stretch(self, stretch: Axis, inner: int, cause: Cause | None) -> _Pair:
        """Split a stretch of whole rows; if its factors cannot be split there, cut it row by row."""
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
        return Fixed(len(rows), with_reason(cause, "rows tied by a concatenation")), rows[0]

    def _refine(self, factors: Sequence[Axis], at: Sequence[int], cause: Cause | None) -> list[Axis] | None:
        """Split factors (right to left) so that all numbers in `at` occur among their running products.

        Returns:
            The pieces, right to left, or None if a factor cannot be split at one of the numbers.
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
        """Return the axes of a tensor with `axes` after a row-major reshape to `sizes`.

        Axes are matched by their position, through running products from the right, never because
        they happen to have the same size (A4). If the factors of one group have no common refinement,
        that group is frozen and its neighbours are not (A6).

        Raises:
            ValueError: The reshape would change the number of elements.
        """
        if math.prod(axis.n for axis in axes) != math.prod(sizes):
            message = f"cannot reshape {[axis.n for axis in axes]} into {list(sizes)}"
            raise ValueError(message)
        if 0 in sizes:
            return self._reshape_empty(axes, sizes, cause)
        if len(axes) == 1 and axes[0].n in sizes and axes[0].n > 1:
            return [self.find(axes[0]) if n != 1 else Fixed(1) for n in sizes]  # only 1s are added
        # Fixed factors are merged only within a group, so that each keeps its own cause.
        factors = [factor for axis in axes for factor in factors_of(self.find(axis))][::-1]
        wanted = [n for n in reversed(sizes) if n != 1]
        made: list[Axis] = []
        for here, there in matching_stretches(_sizes(factors), wanted):
            group = factors_of(product(*factors[here][::-1]))[::-1]
            made += self._regroup(group, wanted[there], cause)
        self._settle()
        made.reverse()
        found = iter(made)
        return [self.find(next(found)) if n != 1 else Fixed(1) for n in sizes]

    def _reshape_empty(self, axes: Iterable[Axis], sizes: Iterable[int], cause: Cause | None) -> list[Axis]:
        """Freeze everything: a tensor without elements does not determine how positions correspond."""
        for axis in axes:
            self.freeze(axis, cause)
        return [Fixed(n, cause) for n in sizes]

    def _regroup(self, factors: Sequence[Axis], sizes: Sequence[int], cause: Cause | None) -> list[Axis]:
        pieces = self._refine(factors, running_products(sizes), cause)
        if pieces is not None:
            return _multiply_pieces(pieces, sizes)
        reason = self._conflict(factors, _sizes(factors), sizes, cause)
        return [Fixed(n, reason) for n in sizes]


def _sizes(axes: Iterable[Axis]) -> tuple[int, ...]:
    return tuple(axis.n for axis in axes)


def _multiply_pieces(pieces: Sequence[Axis], sizes: Iterable[int]) -> list[Axis]:
    """Multiply consecutive pieces (right to left) into axes of the given sizes."""
    stream = iter(pieces)
    axes: list[Axis] = []
    for size in sizes:
        axis: Axis = Fixed(1)
        while axis.n < size:
            axis = product(next(stream), axis)
        axes.append(axis)
    return axes
