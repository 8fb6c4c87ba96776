"""Plans: which slots of which orbits stay."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from torch_dag_core.atomic_files import write_text
from torch_dag_pruning.errors import PlanError
from torch_dag_pruning.plan.plan_file import read_document

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis
    from torch_dag_pruning.plan.criteria import ImportanceCriterion

_FORMAT = 1


class OrbitChange(NamedTuple):
    """What one plan keeps of an orbit that the other does not, and the other way round."""

    added: tuple[int, ...]
    dropped: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Plan:
    """Which slots of each orbit stay. Orbits that a plan does not name stay whole.

    Attributes:
        kept: Ascending slot numbers by orbit key.
        sizes: All slots of each orbit named in ``kept``, as the analysis had them.
    """

    kept: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, int]

    def __post_init__(self) -> None:
        """Order and check what was given, and keep a copy of it.

        Raises:
            PlanError: the two mappings name other orbits, or a slot is out of range or listed twice.
        """
        if self.kept.keys() != self.sizes.keys():
            message = f"a plan needs slots and a size for the same orbits, got {list(self.kept)} and {list(self.sizes)}"
            raise PlanError(message)
        for key, slots in self.kept.items():
            _check_slots(key, slots, self.sizes[key])
        object.__setattr__(self, "kept", {key: tuple(sorted(self.kept[key])) for key in sorted(self.kept)})
        object.__setattr__(self, "sizes", {key: self.sizes[key] for key in sorted(self.sizes)})

    # Making ----------------------------------------------------------------------------------------------------

    @classmethod
    def whole(cls, analysis: Analysis) -> Plan:
        """Return the plan that keeps everything."""
        return cls.keeping(analysis, {orbit.key: range(orbit.n) for orbit in analysis.orbits})

    @classmethod
    def keeping(cls, analysis: Analysis, kept: Mapping[str, Iterable[int]]) -> Plan:
        """Return the plan that keeps these slots, and orbits that are not named whole.

        Raises:
            PlanError: an orbit is unknown, a slot out of range, or too few slots are kept.
        """
        sizes = {orbit.key: orbit.n for orbit in analysis.orbits}
        for key in kept:
            if key not in sizes:
                raise _unknown(key)
        slots = {key: tuple(kept.get(key, range(n))) for key, n in sizes.items()}
        plan = cls(slots, sizes)
        plan.validate(analysis)
        return plan

    @classmethod
    def random(cls, analysis: Analysis, keep: float, seed: int = 0) -> Plan:
        """Return a plan that keeps ``round(keep * n)`` random slots of each orbit, at least its minimum and 1.

        Raises:
            PlanError: ``keep`` is no fraction.
        """
        if not 0.0 <= keep <= 1.0:
            message = f"keep is the fraction of slots that stay, between 0 and 1; got {keep!r}"
            raise PlanError(message)
        generator = torch.Generator().manual_seed(seed)
        return cls.keeping(analysis, {o.key: _random_slots(o.n, _least(o), keep, generator) for o in analysis.orbits})

    @classmethod
    def by_importance(
        cls, analysis: Analysis, criterion: str | ImportanceCriterion, keep_flops: float, *, scope: str = "global",
        multiple_of: int = 1,
    ) -> Plan:  # fmt: skip
        """Return the plan that keeps the most important slots within ``keep_flops`` of the present FLOPs.

        Args:
            analysis: Of the graph to prune.
            criterion: Scores the slots; an object, or the name of one that a plugin offers (``"l2"``).
            keep_flops: Fraction of FLOPs that may stay.
            scope: ``"global"`` compares scores of all orbits, each divided by its orbit's mean; ``"local"`` keeps
                the same share of every orbit.
            multiple_of: Widths become multiples of this where the orbit has as many slots.

        Raises:
            PlanError: the FLOPs cannot be reached (the message says how far down they go), or an unknown scope or
                criterion.
        """
        from torch_dag_pruning.plan.selection import select

        return cls.keeping(analysis, select(analysis, criterion, keep_flops, scope=scope, multiple_of=multiple_of))

    # Reading and editing ---------------------------------------------------------------------------------------

    def with_orbit(self, key: str, kept: Iterable[int]) -> Plan:
        """Return a plan that keeps other slots of one orbit.

        Raises:
            PlanError: the plan has no such orbit, or a slot is out of range.
        """
        if key not in self.kept:
            message = f"the plan has no orbit {key!r}; list(plan.kept) names them"
            raise PlanError(message)
        return Plan({**self.kept, key: tuple(kept)}, self.sizes)

    def counts(self) -> dict[str, int]:
        """Return how many slots of each orbit stay, by key."""
        return {key: len(slots) for key, slots in self.kept.items()}

    def atom_counts(self, analysis: Analysis) -> dict[int, int]:
        """Return how many slots of each orbit stay, by atom: what `Analysis.cost` takes."""
        return {orbit.atom.id: len(self.kept.get(orbit.key, range(orbit.n))) for orbit in analysis.orbits}

    def mask(self, key: str) -> Tensor:
        """Return which slots of an orbit stay, as a bool vector."""
        mask = torch.zeros(self.sizes[key], dtype=torch.bool)
        mask[list(self.kept[key])] = True
        return mask

    def atom_masks(self, analysis: Analysis, dtype: torch.dtype = torch.bool) -> dict[int, Tensor]:
        """Return the mask of every free atom, by its id: 1 for slots that stay, 0 for others."""
        masks = {atom.id: torch.ones(atom.n, dtype=dtype) for atom in analysis.solver.atoms()}
        for orbit in analysis.orbits:
            if orbit.key in self.kept:
                masks[orbit.atom.id] = self.mask(orbit.key).to(dtype)
        return masks

    def diff(self, other: Plan) -> dict[str, OrbitChange]:
        """Return, for each orbit that ``other`` treats in another way, the slots it adds and drops."""
        changes = {key: self._change(other, key) for key in sorted({*self.kept, *other.kept})}
        return {key: change for key, change in changes.items() if change != OrbitChange((), ())}

    def _change(self, other: Plan, key: str) -> OrbitChange:
        mine, theirs = self._slots(key, other), other._slots(key, self)
        return OrbitChange(tuple(sorted(theirs - mine)), tuple(sorted(mine - theirs)))

    def _slots(self, key: str, other: Plan) -> set[int]:
        return set(self.kept.get(key, range(other.sizes.get(key, 0))))

    def validate(self, analysis: Analysis) -> None:
        """Check that the plan can be carried out on the analysed graph.

        Raises:
            PlanError: names the first orbit that is unknown, of another size, or kept below its minimum.
        """
        orbits = {orbit.key: orbit for orbit in analysis.orbits}
        for key, slots in self.kept.items():
            if key not in orbits:
                raise _unknown(key)
            if self.sizes[key] != orbits[key].n:
                message = f"orbit {key!r} has {orbits[key].n} slots, the plan was made for {self.sizes[key]}"
                raise PlanError(message)
            if len(slots) < orbits[key].minimum:
                message = f"orbit {key!r} needs at least {orbits[key].minimum} slots, the plan keeps {len(slots)}"
                raise PlanError(message)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.kept == other.kept and self.sizes == other.sizes

    def __hash__(self) -> int:
        return hash(tuple(self.kept.items()))

    def __str__(self) -> str:
        width = max((len(key) for key in self.kept), default=0)
        lines = [f"{key:{width}}  {len(slots):5d} of {self.sizes[key]:5d}" for key, slots in self.kept.items()]
        total, stay = sum(self.sizes.values()), sum(map(len, self.kept.values()))
        return "\n".join([f"keeps {stay} of {total} slots in {len(self.kept)} orbits", *lines])

    # Files -----------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write the plan as JSON, replacing the file atomically.

        Raises:
            OSError: the file cannot be written, or the path is something other than a file.
        """
        orbits = {key: {"size": self.sizes[key], "kept": list(slots)} for key, slots in self.kept.items()}
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(entry)}" for key, entry in orbits.items())
        write_text(path, f'{{"torch_dag_plan": {_FORMAT}, "orbits": {{\n{lines}\n}}}}\n')

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan that `save` wrote.

        Raises:
            PlanError: the file is not a plan, or one of a newer format.
        """
        orbits = read_document(Path(path), _FORMAT)
        return cls(
            {key: tuple(entry["kept"]) for key, entry in orbits.items()},
            {key: entry["size"] for key, entry in orbits.items()},
        )


def _check_slots(key: str, slots: Iterable[int], size: int) -> None:
    seen: set[int] = set()
    for slot in slots:
        if not 0 <= slot < size:
            message = f"orbit {key!r} has the slots 0..{size - 1}, there is no slot {slot}"
            raise PlanError(message)
        if slot in seen:
            message = f"the plan lists slot {slot} of orbit {key!r} twice"
            raise PlanError(message)
        seen.add(slot)


def _unknown(key: str) -> PlanError:
    return PlanError(f"the graph has no orbit {key!r}; [orbit.key for orbit in analysis.orbits] lists them")


def _least(orbit: Any) -> int:
    """Return how many slots of an orbit a generated plan keeps; only a plan written by hand may drop all of them."""
    return max(1, int(orbit.minimum))


def _random_slots(n: int, least: int, keep: float, generator: torch.Generator) -> list[int]:
    count = min(n, max(least, round(keep * n)))
    slots: list[int] = torch.randperm(n, generator=generator)[:count].tolist()
    return slots
