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
from torch_dag_pruning.plan.criteria import ImportanceCriterion, criterion_named, learned_tensors

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis

Counts = dict[str, int]


def select(
    analysis: Analysis, criterion: str | ImportanceCriterion, keep_flops: float, *, scope: str, multiple_of: int
) -> dict[str, list[int]]:
    """Return the slots that stay, by orbit key; see `Plan.by_importance`."""
    _check(keep_flops, scope, multiple_of)
    chosen = criterion_named(criterion) if isinstance(criterion, str) else criterion
    scores = {key: score.to(torch.float64) for key, score in chosen.score(analysis).items()}
    inner = _innermost(analysis)
    widths = [
        _Width(o.key, o.n, max(1, o.minimum), multiple_of if o.atom in inner and o.n >= multiple_of else 1)
        for o in analysis.orbits
    ]
    counts_at, levels = _SCOPES[scope](scores, widths)
    counts = _cheapest(analysis, keep_flops, counts_at, levels)
    return {key: _best(scores[key], count) for key, count in counts.items()}


def _check(keep_flops: float, scope: str, multiple_of: int) -> None:
    if not 0.0 < keep_flops <= 1.0:
        message = f"keep_flops is the fraction of FLOPs that stays, above 0 and at most 1; got {keep_flops!r}"
        raise PlanError(message)
    if scope not in _SCOPES:
        message = f"there is no scope {scope!r}; there are {', '.join(map(repr, _SCOPES))}"
        raise PlanError(message)
    if multiple_of < 1:
        message = f"multiple_of must be at least 1, got {multiple_of}"
        raise PlanError(message)


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


def _globally(scores: Mapping[str, Tensor], widths: list[_Width]) -> tuple[Callable[[int], Counts], int]:
    """Rank the slots of all orbits together, each score divided by the mean of its orbit."""
    ranked = {key: (score / score.mean().clamp_min(1e-300)).sort().values for key, score in scores.items()}
    everything = torch.cat([*ranked.values(), torch.tensor([-math.inf, math.inf], dtype=torch.float64)])
    marks = torch.unique(everything)

    def counts_at(level: int) -> Counts:
        above = {key: score.numel() - int(torch.searchsorted(score, marks[level])) for key, score in ranked.items()}
        return {width.key: width.allowed(above[width.key]) for width in widths}

    return counts_at, marks.numel()


def _locally(_scores: Mapping[str, Tensor], widths: list[_Width]) -> tuple[Callable[[int], Counts], int]:
    """Keep the same share of every orbit."""
    steps = max((width.n for width in widths), default=1)

    def counts_at(level: int) -> Counts:
        return {width.key: width.allowed(round(width.n * (1 - level / steps))) for width in widths}

    return counts_at, steps + 1


_SCOPES: Final = {"global": _globally, "local": _locally}


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
