"""Atoms and what became of them: a union-find whose classes are expressions.

Every atom is free or bound to an expression of the same size. Binding is the only mutation, and
an atom is bound at most once, so expressions held elsewhere never become wrong, only stale;
`find` brings them up to date.
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

#: Pieces that one atom may be broken into before it is frozen whole: a saved plan or a report
#: with hundreds of slivers of one layer helps nobody (rule 7).
FRAGMENT_LIMIT: Final = 256

_REBUILD: Final[dict[type[Axis], Callable[..., Axis]]] = {Product: product, Concat: concat}


def because(cause: Cause | None, reason: str) -> Cause:
    """Return `cause` with another reason, keeping the vertex and op it names."""
    return replace(cause or Cause("", "", ""), reason=reason)


class Bindings:
    """The atoms of one analysis and the expressions that they are bound to."""

    def __init__(self) -> None:
        """Start without atoms."""
        self.bound: dict[int, Axis] = {}
        self._atoms: dict[int, Atom] = {}
        self._origin: dict[int, Atom] = {}
        self._pieces: Counter[int] = Counter()
        self._known: dict[int, tuple[Axis, int, Axis]] = {}

    def atom(self, n: int, name: str = "") -> Axis:
        """Return a new free atom, or `Fixed(n)` when `n` is 0 or 1 (rule 2)."""
        if n <= 1:
            return Fixed(n)
        made = Atom(len(self._atoms), n, name)
        self._atoms[made.id] = self._origin[made.id] = made
        return made

    def fixed(self, n: int, cause: Cause | None = None) -> Fixed:
        """Return `n` slots that stay."""
        return Fixed(n, cause)

    def atoms(self) -> list[Atom]:
        """Return the free atoms in order of creation."""
        return [atom for atom in self._atoms.values() if atom.id not in self.bound]

    def find(self, axis: Axis) -> Axis:
        """Return the canonical expression of `axis` over free atoms only.

        Bindings met on the way are compressed. Runs on an explicit stack: chains of bound atoms
        may be as long as the model. What was found stays known until the next atom is bound.
        """
        if isinstance(axis, Fixed) or (isinstance(axis, Atom) and axis.id not in self.bound):
            return axis
        epoch = len(self.bound)
        known = self._known.get(id(axis))
        if known is None or known[1] != epoch:
            # The expression itself is kept, so that its identity is not given to another.
            known = self._known[id(axis)] = (axis, epoch, self._found(axis))
        return known[2]

    def _found(self, axis: Axis) -> Axis:
        done: dict[int, tuple[Axis, Axis]] = {}  # by identity; keeps the node alive as well
        stack = [axis]
        while stack:
            node = stack.pop()
            waiting = [child for child in self._below(node) if id(child) not in done]
            if waiting:
                stack += [node, *waiting]
            else:
                done[id(node)] = node, self._resolved(node, done)
        return done[id(axis)][1]

    def _below(self, node: Axis) -> tuple[Axis, ...]:
        if isinstance(node, Atom) and node.id in self.bound:
            return (self.bound[node.id],)
        return node.children

    def _resolved(self, node: Axis, done: dict[int, tuple[Axis, Axis]]) -> Axis:
        old = self._below(node)
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
        """Fix every slot of `axis`; atoms that are fixed already keep their first cause."""
        for atom in atoms(self.find(axis)):
            self.bound[atom.id] = Fixed(atom.n, cause)

    def divide(
        self,
        atom: Atom,
        sizes: Sequence[int],
        build: Callable[..., Axis],
        cause: Cause | None,
    ) -> list[Axis]:
        """Bind a free atom to `build(*pieces)` and return the pieces, of the given sizes.

        A piece of one slot is Fixed. Past the fragment limit all that came from the same
        original atom is frozen instead.
        """
        origin = self._origin[atom.id]
        self._pieces[origin.id] += len(sizes) - 1
        if self._pieces[origin.id] >= FRAGMENT_LIMIT:
            fragmented = because(cause, "too fragmented")
            self.freeze(origin, fragmented)
            return [Fixed(n, fragmented) for n in sizes]
        pieces = [self._piece(atom, n, cause) for n in sizes]
        self.bound[atom.id] = build(*pieces)
        return pieces

    def _piece(self, atom: Atom, n: int, cause: Cause | None) -> Axis:
        piece = self.atom(n, atom.name)
        if not isinstance(piece, Atom):
            return Fixed(n, because(cause, "a single slot"))
        self._origin[piece.id] = self._origin[atom.id]
        return piece
