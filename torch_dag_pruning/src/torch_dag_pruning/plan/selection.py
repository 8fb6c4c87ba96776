"""Which slots stay within a budget of FLOPs: one threshold on the scores of all orbits, found by bisection."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from torch_dag_pruning.axes import Atom, Axis, Product, atoms
from torch_dag_pruning.errors import PlanError
from torch_dag_pruning.plan.criteria import ImportanceCriterion, learned_tensors
from torch_dag_pruning.plan.isomorphism import isomorphic_classes
from torch_dag_pruning.plan.known_criteria import is_comparable

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis

Counts = dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How slots are chosen from their scores.

    Attributes:
        keep_flops: Fraction of FLOPs that may stay.
        scope: ``"global"``, ``"isomorphic"`` or ``"local"``; see `Plan.by_importance`.
        per: What scores are divided by: ``"flops"`` or ``"parameters"`` that go with a slot, or None.
        multiple_of: Widths become multiples of this where the orbit has as many slots.
    """

    keep_flops: float
    scope: str = "global"
    per: str | None = None
    multiple_of: int = 1

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            PlanError: names the field and what it may be.
        """
        if not 0.0 < self.keep_flops <= 1.0:
            message = f"keep_flops is the fraction of FLOPs that stays, above 0 and at most 1; got {self.keep_flops!r}"
            raise PlanError(message)
        if self.scope not in SCOPES:
            message = f"there is no scope {self.scope!r}; there are {', '.join(map(repr, SCOPES))}"
            raise PlanError(message)
        if self.per not in PRICES:
            message = f"per must be one of {', '.join(map(repr, PRICES))}, got {self.per!r}"
            raise PlanError(message)
        if self.multiple_of < 1:
            message = f"multiple_of must be at least 1, got {self.multiple_of}"
            raise PlanError(message)


def select(analysis: Analysis, criterion: ImportanceCriterion, choice: Choice) -> dict[str, list[int]]:
    """Return the slots that stay, by orbit key; see `Plan.by_importance`."""
    scores = {key: score.to(torch.float64) for key, score in criterion.score(analysis).items()}
    inner, step = _innermost(analysis), choice.multiple_of
    widths = [
        _Width(o.key, o.n, max(1, o.minimum), step if o.atom in inner and o.n >= step else 1) for o in analysis.orbits
    ]
    worth = scores if is_comparable(criterion) else {key: score / _mean(score) for key, score in scores.items()}
    if choice.per is not None:
        worth = _per_cost(analysis, worth, choice.per)
    counts_at, levels = SCOPES[choice.scope](analysis, worth, widths)
    counts = _cheapest(analysis, choice.keep_flops, counts_at, levels)
    return {key: _best(scores[key], count) for key, count in counts.items()}


def _mean(score: Tensor) -> Tensor:
    return score.mean().clamp_min(1e-300)


def _per_cost(analysis: Analysis, scores: Mapping[str, Tensor], per: str) -> dict[str, Tensor]:
    """Divide scores by what goes with one slot of their orbit, relative to the whole graph."""
    cost = analysis.cost if per == "flops" else analysis.parameters_count
    whole = float(cost())
    shares = {o.key: 1.0 - float(cost({o.atom.id: o.n - 1})) / whole for o in analysis.orbits}
    return {key: score / max(shares[key], 1e-300) for key, score in scores.items()}


@dataclass(frozen=True)
class _Width:
    """How many slots an orbit may keep."""

    key: str
    n: int
    least: int
    step: int

    def allowed(self, count: int) -> int:
        """Return the smallest allowed number of slots that is not below ``count``."""
        wanted = max(count, self.least)
        return min(self.n, math.ceil(wanted / self.step) * self.step)


def _cheapest(analysis: Analysis, keep_flops: float, counts_at: Callable[[int], Counts], levels: int) -> Counts:
    """Return the largest counts within the budget; they shrink from level 0, which keeps everything."""
    atoms = {orbit.key: orbit.atom.id for orbit in analysis.orbits}

    def flops_at(level: int) -> float:
        return float(analysis.cost({atoms[key]: count for key, count in counts_at(level).items()}))

    whole = float(analysis.cost())
    # Levels that exceed the budget come first: 0 for those, 1 for the others.
    level = bisect.bisect_left(range(levels), 1, key=lambda at: int(flops_at(at) <= keep_flops * whole))
    if level == levels:
        least = flops_at(levels - 1) / whole
        message = f"{keep_flops:.2%} of the FLOPs cannot be reached: with every orbit at its minimum {least:.2%} stay"
        raise PlanError(message)
    return counts_at(level)


_Levels = tuple[Callable[[int], Counts], int]


def _globally(_analysis: Analysis, worth: Mapping[str, Tensor], widths: list[_Width]) -> _Levels:
    """Rank the slots of all orbits together."""
    ranked = {key: score.sort().values for key, score in worth.items()}
    everything = torch.cat([*ranked.values(), torch.tensor([-math.inf, math.inf], dtype=torch.float64)])
    marks = torch.unique(everything)

    def counts_at(level: int) -> Counts:
        above = {key: score.numel() - int(torch.searchsorted(score, marks[level])) for key, score in ranked.items()}
        return {width.key: width.allowed(above[width.key]) for width in widths}

    return counts_at, marks.numel()


def _isomorphically(analysis: Analysis, worth: Mapping[str, Tensor], widths: list[_Width]) -> _Levels:
    """Rank the slots of isomorphic orbits together, and keep the same share of every class."""
    classes = isomorphic_classes(analysis)
    ranked = {name: torch.cat([worth[key] for key in keys]).sort().values for name, keys in classes.items()}
    class_of = {key: name for name, keys in classes.items() for key in keys}
    steps = max((values.numel() for values in ranked.values()), default=1)

    def counts_at(level: int) -> Counts:
        counts: Counts = {}
        for width in widths:
            values = ranked[class_of[width.key]]
            gone = round(values.numel() * level / steps)
            mark = values[gone] if gone < values.numel() else torch.tensor(math.inf)
            counts[width.key] = width.allowed(int((worth[width.key] >= mark).sum()))
        return counts

    return counts_at, steps + 1


def _locally(_analysis: Analysis, _worth: Mapping[str, Tensor], widths: list[_Width]) -> _Levels:
    """Keep the same share of every orbit."""
    steps = max((width.n for width in widths), default=1)

    def counts_at(level: int) -> Counts:
        return {width.key: width.allowed(round(width.n * (1 - level / steps))) for width in widths}

    return counts_at, steps + 1


SCOPES: Final = {"global": _globally, "isomorphic": _isomorphically, "local": _locally}
PRICES: Final = (None, "flops", "parameters")


def _innermost(analysis: Analysis) -> set[Atom]:
    """Return the atoms whose slots lie next to each other wherever they occur: widths, but not heads or groups."""
    inner: set[Atom] = set()
    outer: set[Atom] = set()
    for _, axes in learned_tensors(analysis):
        for axis in axes:
            found = _last_atoms(axis)
            inner |= found
            outer |= set(atoms(axis)) - found
    return inner - outer


def _last_atoms(axis: Axis) -> set[Atom]:
    found: set[Atom] = set()
    stack = [axis]
    while stack:
        node = stack.pop()
        if isinstance(node, Atom):
            found.add(node)
        stack += node.children[-1:] if isinstance(node, Product) else node.children
    return found


def _best(score: Tensor, count: int) -> list[int]:
    """Return the slots with the highest scores; of equal ones the first."""
    order: list[int] = score.sort(descending=True, stable=True).indices.tolist()
    return order[:count]
