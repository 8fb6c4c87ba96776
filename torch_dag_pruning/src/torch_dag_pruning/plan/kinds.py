"""What the slots of an orbit are: plain widths, attention heads, the widths of heads, or groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from torch_dag_pruning.axes import Atom, Axis, Concat, Fixed, Product, atoms
from torch_dag_pruning.plan.criteria import learned_tensors

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis

KINDS: Final = ("widths", "heads", "head_widths", "groups")
_GROUPED: Final = frozenset({"groups", "num_groups"})
_AXES: Final = (Atom, Concat, Fixed, Product)


def orbit_kinds(analysis: Analysis) -> dict[str, str]:
    """Return the kind of each orbit, one of `KINDS`, by key.

    A slot of ``heads`` or ``groups`` is a whole row of neighbouring channels in some learned tensor; of ``groups`` if
    the number of slots is the number of groups of a layer. ``head_widths`` have a slot in every head. All others are
    ``widths``.
    """
    outer: dict[Atom, set[Atom]] = {}
    for _, axes in learned_tensors(analysis):
        for product in (node for axis in axes for node in _products(axis)):
            for inside in atoms(product.factors[-1]):
                outer.setdefault(inside, set()).update(*map(atoms, product.factors[:-1]))
    counted = _counted_as_groups(analysis)
    rows = set().union(*outer.values())
    kinds = {orbit.atom: _kind(orbit.atom, rows, counted) for orbit in analysis.orbits}
    is_in_heads = {atom for atom, rows_of in outer.items() if any(kinds.get(row) == "heads" for row in rows_of)}
    return {
        orbit.key: "head_widths" if orbit.atom in is_in_heads - rows else kinds[orbit.atom] for orbit in analysis.orbits
    }


def _kind(atom: Atom, rows: set[Atom], counted: set[Atom]) -> str:
    if atom not in rows:
        return "widths"
    return "groups" if atom in counted else "heads"


def _products(axis: Axis) -> Iterator[Product]:
    stack = [axis]
    while stack:
        node = stack.pop()
        if isinstance(node, Product):
            yield node
        stack.extend(node.children)


def _counted_as_groups(analysis: Analysis) -> set[Atom]:
    """Return the atoms in the number of groups of a layer."""
    found: set[Atom] = set()
    for relation in analysis.relations.values():
        for name, value in relation.rewrite.items():
            if name in _GROUPED:
                found.update(*map(atoms, _axes(value)))
    return found


def _axes(value: Any) -> list[Axis]:
    return [each for each in (value if isinstance(value, tuple) else (value,)) if isinstance(each, _AXES)]
