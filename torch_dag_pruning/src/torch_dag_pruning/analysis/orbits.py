"""Orbits: the groups of slots that can be pruned, with all places where they occur."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch_dag_core.graph.builtin_ops import TensorHolder
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_pruning.analysis.resolution import leaves
from torch_dag_pruning.axes import Atom, AxisSolver, atoms
from torch_dag_pruning.axes.relation import Axes, Relation


@dataclass(frozen=True)
class Place:
    """One dimension of one learned tensor or buffer."""

    vertex: str
    tensor: str
    dim: int

    def __str__(self) -> str:
        return f"{self.vertex}.{self.tensor}:{self.dim}"


@dataclass(frozen=True)
class Orbit:
    """A free atom with all places where its slots occur. A slot is kept or removed at all of them together.

    Attributes:
        key: A name that stays the same between runs: the first place in vertex order, and the position of the atom in
            the axis there, such as ``blocks.0.attn.qkv.weight:0/1``.
        atom: The atom that stands for the slots in axis expressions.
        minimum: The number of slots that must stay (the floor); 0 if the whole orbit may be removed.
        places: The dimensions of parameters and buffers in which the slots occur.
    """

    key: str
    atom: Atom
    minimum: int
    places: tuple[Place, ...]

    @property
    def n(self) -> int:
        """Number of slots."""
        return self.atom.n

    @property
    def name(self) -> str:
        """Name of the vertex of the first place."""
        return self.places[0].vertex


def find_orbits(
    solver: AxisSolver, tensors: Iterable[tuple[InnerVertex, str, Axes]], relations: Iterable[Relation]
) -> tuple[Orbit, ...]:
    """Return one orbit for each free atom in the axes of the tensors, in order of their first places."""
    places: dict[Atom, list[Place]] = {}
    keys: dict[Atom, str] = {}
    for vertex, name, axes in tensors:
        for dim, axis in enumerate(axes):
            for position, atom in leaves(solver.find(axis)):
                place = Place(vertex.name, name, dim)
                where = places.get(atom)
                if where is None:
                    places[atom], keys[atom] = [place], _key(vertex, name, dim, position)
                elif where[-1] != place:  # an axis may hold an atom twice
                    where.append(place)
    least = _minimums(solver, relations)
    return tuple(Orbit(keys[atom], atom, least.get(atom.id, 0), tuple(where)) for atom, where in places.items())


def _minimums(solver: AxisSolver, relations: Iterable[Relation]) -> Mapping[int, int]:
    """Return the minimum number of slots of each atom that has one, by atom id.

    If an axis that needs ``count`` slots contains several atoms, each must keep one slot and the last must keep
    ``count``, so that their product has enough.
    """
    least: dict[int, int] = {}
    for axis, count in (minimum for relation in relations for minimum in relation.minimum):
        inside = atoms(solver.find(axis))
        needed = {atom.id: 1 for atom in inside} | {atom.id: count for atom in inside[-1:]}
        least.update({number: max(some, least.get(number, 0)) for number, some in needed.items()})
    return least


def _key(vertex: InnerVertex, name: str, dim: int, position: int | None) -> str:
    tensor = vertex.name if isinstance(vertex.module, TensorHolder) else f"{vertex.name}.{name}"
    return f"{tensor}:{dim}" if position is None else f"{tensor}:{dim}/{position}"
