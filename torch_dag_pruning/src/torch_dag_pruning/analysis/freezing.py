"""Slots that are frozen after all rules have run, because no orbit could offer them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch_dag_pruning.analysis.propagation import Propagation
from torch_dag_pruning.axes import Axis, AxisSolver, Cause, Fixed, atoms
from torch_dag_pruning.axes.expression import factors_of
from torch_dag_pruning.axes.relation import Relation


def freeze_unprunable(solver: AxisSolver, propagations: Sequence[Propagation]) -> None:
    """Freeze the atoms that cannot be pruned although no rule froze them; the atoms left free are the orbits.

    Args:
        solver: Holds what the rules said.
        propagations: One run of the rules at each size of input, the size of the analysis first.
    """
    for other in propagations[1:]:
        _freeze_what_masks_cannot_follow(solver, propagations[0], other)
    _freeze_what_nothing_makes(solver, propagations[0])


def _freeze_what_masks_cannot_follow(solver: AxisSolver, here: Propagation, there: Propagation) -> None:
    """Freeze slots mixed with a free size other than as its rows: a mask over them fits one size of input only."""
    for name, relation in here.relations.items():
        pairs = zip(_masked(relation), _masked(there.relations[name]), strict=True)
        for (axis, by_rows), (resized, _) in pairs:
            if not _fits(solver.find(axis), solver.find(resized), by_rows=by_rows):
                solver.freeze(axis, Cause(name, "mask", "slots are mixed with a size that follows the input's"))


def _masked(relation: Relation) -> Iterator[tuple[Axis, bool]]:
    """Iterate over the axes that masks are laid over; those of statistics repeat a mask for each row."""
    yield from ((axis, False) for sink in relation.sinks for axis in sink.axes)
    yield from ((axis, True) for axis in relation.statistics)


def _fits(axis: Axis, resized: Axis, *, by_rows: bool) -> bool:
    if axis == resized or not atoms(axis):
        return True
    return by_rows and _row(axis) == _row(resized)


def _row(axis: Axis) -> tuple[Axis, ...]:
    """Return the factors behind an outermost factor that stays."""
    factors = factors_of(axis)
    return factors[1:] if isinstance(factors[0], Fixed) else factors


def _freeze_what_nothing_makes(solver: AxisSolver, propagation: Propagation) -> None:
    """Freeze atoms that are no out axis of a learned contraction: register tokens, constants of positions."""
    relations = propagation.relations.values()
    learned = (axis for relation in relations for axis in relation.learned)
    owned = (axis for relation in relations for axes in relation.parameters.values() for axis in axes)
    made, placed = ({atom.id for axis in axes for atom in atoms(solver.find(axis))} for axes in (learned, owned))
    for atom in solver.atoms():
        if atom.id not in made & placed:
            solver.freeze(atom, Cause(atom.name, "no op", "no learned op makes these slots"))
