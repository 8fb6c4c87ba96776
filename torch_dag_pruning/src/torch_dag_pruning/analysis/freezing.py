"""Freezing of atoms that no orbit can be made of, after all rules have run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch_dag_pruning.analysis.propagation import Propagation
from torch_dag_pruning.axes import Axis, AxisSolver, Cause, Fixed, atoms
from torch_dag_pruning.axes.expression import factors_of
from torch_dag_pruning.axes.relation import Relation


def freeze_unprunable(solver: AxisSolver, propagations: Sequence[Propagation]) -> None:
    """Freeze all atoms that cannot be orbits; those that remain free in the solver are the orbits.

    Args:
        solver: The solver that the propagations share.
        propagations: The runs of the rules, at one or two input sizes.
    """
    for other in propagations[1:]:
        _freeze_size_dependent_masks(solver, propagations[0], other)
    _freeze_unlearned(solver, propagations[0])


def _freeze_size_dependent_masks(solver: AxisSolver, here: Propagation, there: Propagation) -> None:
    """Freeze slots whose mask would have to change with the input size (``docs/axis-algebra.md``, A10).

    A mask that is repeated for each row of a free size, as the masks of statistics are, fits all input sizes.
    """
    for name, relation in here.relations.items():
        pairs = zip(_masked_axes(relation), _masked_axes(there.relations[name]), strict=True)
        for (axis, repeats), (resized, _) in pairs:
            if not _fits_both(solver.find(axis), solver.find(resized), repeats=repeats):
                solver.freeze(axis, Cause(name, "mask", "slots are mixed with a size that follows the input's"))


def _masked_axes(relation: Relation) -> Iterator[tuple[Axis, bool]]:
    """Iterate over the axes that masks apply to, each with whether its mask is repeated for every row."""
    yield from ((axis, False) for sink in relation.sinks for axis in sink.axes)
    yield from ((axis, True) for axis in relation.statistics)


def _fits_both(axis: Axis, resized: Axis, *, repeats: bool) -> bool:
    if axis == resized or not atoms(axis):
        return True
    return repeats and _row(axis) == _row(resized)


def _row(axis: Axis) -> tuple[Axis, ...]:
    """Return the factors of an axis without the outermost one if that is Fixed."""
    factors = factors_of(axis)
    return factors[1:] if isinstance(factors[0], Fixed) else factors


def _freeze_unlearned(solver: AxisSolver, propagation: Propagation) -> None:
    """Freeze atoms that no learned op makes, such as the register tokens of a ViT or the positions in a constant."""
    relations = propagation.relations.values()
    learned = (axis for relation in relations for axis in relation.learned)
    owned = (axis for relation in relations for axes in relation.parameters.values() for axis in axes)
    made, placed = ({atom.id for axis in axes for atom in atoms(solver.find(axis))} for axes in (learned, owned))
    for atom in solver.atoms():
        if atom.id not in made & placed:
            solver.freeze(atom, Cause(atom.name, "no op", "no learned op makes these slots"))
