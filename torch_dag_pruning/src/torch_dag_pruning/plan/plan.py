"""Plans: which slots of which orbits are kept (P4)."""

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
from torch_dag_pruning.plan.plan_file import PLAN, read_orbits

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis
    from torch_dag_pruning.plan.criteria import ImportanceCriterion
    from torch_dag_pruning.plan.selection import Choice
    from torch_dag_pruning.statistics.statistics import Statistics


class OrbitChange(NamedTuple):
    """The slots of one orbit that the second of two plans keeps and the first does not, and vice versa."""

    added: tuple[int, ...]
    dropped: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Plan:
    """The kept slots of each orbit. All slots are kept of an orbit that the plan does not name.

    Attributes:
        kept: Slot numbers in ascending order, by the key of the orbit.
        sizes: Number of slots of each orbit in ``kept``, as analysed.
    """

    kept: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, int]

    def __post_init__(self) -> None:
        """Check and copy the mappings, and sort keys and slots.

        Raises:
            PlanError: the two mappings have different keys, or a slot is out of range or listed twice.
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
        """Return the plan that keeps all slots."""
        return cls.keeping(analysis, {orbit.key: range(orbit.n) for orbit in analysis.orbits})

    @classmethod
    def keeping(cls, analysis: Analysis, kept: Mapping[str, Iterable[int]]) -> Plan:
        """Return the plan that keeps these slots, and all slots of orbits that are not named.

        Raises:
            PlanError: an orbit is unknown, a slot is out of range, or fewer slots than the minimum of the orbit are
                kept.
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
        """Return a plan that keeps ``round(keep * n)`` random slots of each orbit, at least its minimum and 1 (P3).

        Raises:
            PlanError: ``keep`` is not between 0 and 1.
        """
        if not 0.0 <= keep <= 1.0:
            message = f"keep is the fraction of slots that stay, between 0 and 1; got {keep!r}"
            raise PlanError(message)
        generator = torch.Generator().manual_seed(seed)
        return cls.keeping(analysis, {o.key: _random_slots(o.n, _least(o), keep, generator) for o in analysis.orbits})

    @classmethod
    def by_importance(
        cls, analysis: Analysis, criterion: str | ImportanceCriterion, keep_flops: float | None = None, *,
        statistics: Statistics | None = None, **choice: Any,
    ) -> Plan:  # fmt: skip
        """Return the plan that keeps the most important slots within a budget.

        As few slots go as the budget needs: with one more, the plan would exceed it.

        Args:
            analysis: The analysis of the graph to prune.
            criterion: Scores the slots: an object, or a registered name such as ``"l2"``. Slots with the score ``inf``
                stay in any case, those with ``-inf`` go. Of slots with equal scores the first of an orbit stay, and
                such slots of several orbits go turn by turn.
            keep_flops: Share of the FLOPs to keep, above 0 and at most 1.
            statistics: Statistics of the graph, for criteria that use data.
            **choice: The fields of `Choice` and `Limits` in `torch_dag_pruning.plan`. ``keep_parameters``,
                ``keep_memory`` and ``latency_ms`` are other budgets; of several, all are kept to.
                ``scope="global"`` (the default) compares scores of all orbits; those of criteria that do not say that
                theirs can be compared are divided by their orbit's mean. ``scope="isomorphic"`` compares them within
                classes of orbits that occur in the same kinds of layers, and keeps the same share of every class.
                ``scope="local"`` keeps the same share of every orbit. ``per="flops"``, ``"parameters"``, ``"memory"``
                or ``"latency"`` divides scores by what goes with a slot. ``ignore``, ``only``, ``kinds``, ``bounds``
                and ``multiple_of`` say what may be pruned and how far.

        Raises:
            PlanError: a budget cannot be reached (the message says what can), an unknown scope or criterion, a
                selector that names nothing, scores that are missing or NaN, or the criterion looks at data and there
                are no statistics.
            CalibrationError: the statistics are of another graph, or lack gradients.
        """
        from torch_dag_pruning.plan.selection import Choice

        return cls.chosen(analysis, criterion, Choice.of(keep_flops=keep_flops, **choice), statistics)

    @classmethod
    def chosen(
        cls, analysis: Analysis, criterion: str | ImportanceCriterion, choice: Choice,
        statistics: Statistics | None = None,
    ) -> Plan:  # fmt: skip
        """Return the plan of `by_importance`, with its settings as one object."""
        from torch_dag_pruning.plan.selection import select

        return cls.keeping(analysis, select(analysis, cls.scoring(criterion, statistics), choice))

    @staticmethod
    def scoring(criterion: str | ImportanceCriterion, statistics: Statistics | None = None) -> ImportanceCriterion:
        """Return a criterion that may be given by its name, with statistics if it looks at data.

        Raises:
            PlanError: there is no criterion of that name.
        """
        from torch_dag_pruning.plan.known_criteria import criterion_named, with_statistics

        return with_statistics(criterion_named(criterion) if isinstance(criterion, str) else criterion, statistics)

    # Reading and editing ---------------------------------------------------------------------------------------

    def with_orbit(self, key: str, kept: Iterable[int]) -> Plan:
        """Return a copy of the plan with other kept slots of one orbit.

        Raises:
            PlanError: the plan does not name the orbit, or a slot is out of range.
        """
        if key not in self.kept:
            message = f"the plan has no orbit {key!r}; list(plan.kept) names them"
            raise PlanError(message)
        return Plan({**self.kept, key: tuple(kept)}, self.sizes)

    def then(self, other: Plan) -> Plan:
        """Return the plan that keeps what a second plan keeps, which was made for the graph that this one leaves.

        Raises:
            PlanError: the second plan has an orbit that this one lacks, or that is of another size.
        """
        kept = dict(self.kept)
        for key, slots in other.kept.items():
            if key not in kept or len(kept[key]) != other.sizes[key]:
                found = f"{len(kept[key])} slots" if key in kept else "no such orbit"
                message = f"the second plan is for {other.sizes[key]} slots of orbit {key!r}, the first leaves {found}"
                raise PlanError(message)
            kept[key] = tuple(kept[key][slot] for slot in slots)
        return Plan(kept, self.sizes)

    def resized(
        self, analysis: Analysis, sizes: Mapping[str, float], criterion: str | ImportanceCriterion = "l2",
        statistics: Statistics | None = None,
    ) -> Plan:  # fmt: skip
        """Return a copy of the plan that keeps other numbers of slots of some orbits.

        Args:
            analysis: The analysis that the plan is for.
            sizes: By selector (see `torch_dag_pruning.plan.selectors`) of the layers that make the slots: ints are
                slots, floats are shares of the orbit.
            criterion: Scores the slots. An orbit that shrinks loses the kept slots with the lowest scores; one that
                grows gets the dropped slots with the highest.
            statistics: For criteria that look at data.

        Raises:
            PlanError: a selector names nothing, a number is out of range, or the plan is for another graph.
        """
        from torch_dag_pruning.plan.resizing import resized_slots

        self.validate(analysis)
        slots = resized_slots(self, analysis, sizes, self.scoring(criterion, statistics))
        return Plan.keeping(analysis, {**self.kept, **slots})

    def counts(self) -> dict[str, int]:
        """Return the number of kept slots of each orbit in the plan, by key."""
        return {key: len(slots) for key, slots in self.kept.items()}

    def atom_counts(self, analysis: Analysis) -> dict[int, int]:
        """Return the number of kept slots of each analysed orbit, by the id of its atom, for `Analysis.cost`."""
        return {orbit.atom.id: len(self.kept.get(orbit.key, range(orbit.n))) for orbit in analysis.orbits}

    def mask(self, key: str) -> Tensor:
        """Return a bool vector over the slots of an orbit, True for kept slots."""
        mask = torch.zeros(self.sizes[key], dtype=torch.bool)
        mask[list(self.kept[key])] = True
        return mask

    def atom_masks(self, analysis: Analysis, dtype: torch.dtype = torch.bool) -> dict[int, Tensor]:
        """Return the mask of every free atom by its id: a vector of 1 for kept and 0 for dropped slots."""
        masks = {atom.id: torch.ones(atom.n, dtype=dtype) for atom in analysis.solver.atoms()}
        for orbit in analysis.orbits:
            if orbit.key in self.kept:
                masks[orbit.atom.id] = self.mask(orbit.key).to(dtype)
        return masks

    def diff(self, other: Plan) -> dict[str, OrbitChange]:
        """Return, for each orbit that ``other`` treats differently, the slots that it adds and drops."""
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
            PlanError: names the first orbit that is unknown, has another size, or is kept below its minimum.
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
        """Write the plan to a JSON file, which is replaced atomically.

        Raises:
            OSError: the file cannot be written, or the path is something other than a file.
        """
        orbits = {key: {"size": self.sizes[key], "kept": list(slots)} for key, slots in self.kept.items()}
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(entry)}" for key, entry in orbits.items())
        write_text(path, f'{{"{PLAN.key}": {PLAN.version}, "orbits": {{\n{lines}\n}}}}\n')

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan that `save` wrote.

        Raises:
            PlanError: the file is not a plan, or has a newer format.
        """
        orbits = read_orbits(Path(path))
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
    """Return how many slots a generated plan has to keep; only explicit plans may empty an orbit (P3)."""
    return max(1, int(orbit.minimum))


def _random_slots(n: int, least: int, keep: float, generator: torch.Generator) -> list[int]:
    count = min(n, max(least, round(keep * n)))
    slots: list[int] = torch.randperm(n, generator=generator)[:count].tolist()
    return slots
