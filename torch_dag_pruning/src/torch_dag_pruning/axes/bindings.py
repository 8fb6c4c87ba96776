"""Atoms and their bindings: a union-find in which a class is represented by an expression.

Every atom is either free or bound to an expression of the same size. Binding an atom is the only
mutation, and an atom is bound at most once. Expressions stored elsewhere therefore never become
wrong, only out of date; `find` resolves them (``docs/axis-algebra.md``, A9).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from torch_dag_pruning.axes.expression import (
    Atom,
    Axis,
    Cause,
    Concat,
    Fixed,
    Product,
    atoms,
    concat,
    product,
)

#: Number of pieces that one atom may be divided into before all of it is frozen. Hundreds of tiny
#: pieces of one layer would make plans and reports unreadable (``docs/axis-algebra.md``, A7).
FRAGMENT_LIMIT: Final = 256

_REBUILD: Final[dict[type[Axis], Callable[..., Axis]]] = {Product: product, Concat: concat}


def with_reason(cause: Cause | None, reason: str) -> Cause:
    """Return a copy of `cause` with another reason; an empty cause if there is none."""
    return replace(cause or Cause("", "", ""), reason=reason)


class Bindings:
    """The atoms of one analysis and the expressions that they are bound to."""

    def __init__(self) -> None:
        """Create an empty set of atoms."""
        self.bound: dict[int, Axis] = {}
        self._atoms: dict[int, Atom] = {}
        self._origin: dict[int, Atom] = {}
        self._pieces: Counter[int] = Counter()
        self._resolved: dict[int, tuple[Axis, int, Axis]] = {}

    def atom(self, n: int, name: str = "") -> Axis:
        """Return a new free atom, or `Fixed(n)` for 0 or 1 slots (``docs/axis-algebra.md``, A2)."""
        if n <= 1:
            return Fixed(n)
        made = Atom(len(self._atoms), n, name)
        self._atoms[made.id] = self._origin[made.id] = made
        return made

    def fixed(self, n: int, cause: Cause | None = None) -> Fixed:
        """Return `n` slots that cannot be removed."""
        return Fixed(n, cause)

    def atoms(self) -> list[Atom]:
        """Return all free atoms, in order of creation."""
        return [atom for atom in self._atoms.values() if atom.id not in self.bound]

    def find(self, axis: Axis) -> Axis:
        """Return `axis` as a canonical expression over free atoms only.

        Compresses the bindings that it follows (path compression). Uses an explicit stack, because
        a chain of bound atoms may be as long as the model is deep. Results are cached until the
        next atom is bound.
        """
        seen: list[int] = []
        while isinstance(axis, Atom) and axis.id in self.bound:
            seen.append(axis.id)
            axis = self.bound[axis.id]
        if isinstance(axis, (Fixed, Atom)):
            for number in seen[:-1]:
                self.bound[number] = axis
            return axis
        epoch = len(self.bound)
        cached = self._resolved.get(id(axis))
        if cached is None or cached[1] != epoch:
            # The entry holds the expression itself, so that its id() cannot be reused.
            cached = self._resolved[id(axis)] = (axis, epoch, self._resolve(axis))
        return cached[2]

    def _resolve(self, axis: Axis) -> Axis:
        done: dict[int, tuple[Axis, Axis]] = {}  # by id(); holds the node, so that its id() cannot be reused
        stack = [axis]
        while stack:
            node = stack.pop()
            waiting = [child for child in self._children(node) if id(child) not in done]
            if waiting:
                stack += [node, *waiting]
            else:
                done[id(node)] = node, self._rebuild(node, done)
        return done[id(axis)][1]

    def _children(self, node: Axis) -> tuple[Axis, ...]:
        """Return what a node is made of; of a bound atom, the expression that it is bound to."""
        if isinstance(node, Atom) and node.id in self.bound:
            return (self.bound[node.id],)
        return node.children

    def _rebuild(self, node: Axis, done: dict[int, tuple[Axis, Axis]]) -> Axis:
        old = self._children(node)
        new = [done[id(child)][1] for child in old]
        if isinstance(node, Atom):
            return self._compress(node, *new)
        if all(a is b for a, b in zip(old, new, strict=True)):
            return node
        return _REBUILD[type(node)](*new)

    def _compress(self, atom: Atom, *target: Axis) -> Axis:
        if not target:
            return atom
        self.bound[atom.id] = target[0]
        return target[0]

    def freeze(self, axis: Axis, cause: Cause | None) -> None:
        """Bind every free atom in `axis` to `Fixed`; slots that are fixed already keep their first cause."""
        for atom in atoms(self.find(axis)):
            self.bound[atom.id] = Fixed(atom.n, cause)

    def divide(
        self,
        atom: Atom,
        sizes: Sequence[int],
        build: Callable[..., Axis],
        cause: Cause | None,
    ) -> list[Axis]:
        """Bind a free atom to `build(*pieces)`, with new pieces of the given sizes, and return the pieces.

        A piece of one slot is Fixed. When the original atom has been divided into too many pieces
        (`FRAGMENT_LIMIT`), all of them are frozen instead.
        """
        origin = self._origin[atom.id]
        self._pieces[origin.id] += len(sizes) - 1
        if self._pieces[origin.id] >= FRAGMENT_LIMIT:
            fragmented = with_reason(cause, "too fragmented")
            self.freeze(origin, fragmented)
            return [Fixed(n, fragmented) for n in sizes]
        pieces = [self._piece(atom, n, cause) for n in sizes]
        self.bound[atom.id] = build(*pieces)
        return pieces

    def _piece(self, atom: Atom, n: int, cause: Cause | None) -> Axis:
        piece = self.atom(n, atom.name)
        if not isinstance(piece, Atom):
            return Fixed(n, with_reason(cause, "a single slot"))
        self._origin[piece.id] = self._origin[atom.id]
        return piece
