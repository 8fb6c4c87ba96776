"""Editing a plan by the names of layers: other numbers of slots, chosen by their scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from torch_dag_pruning.errors import PlanError
from torch_dag_pruning.plan.criteria import ImportanceCriterion
from torch_dag_pruning.plan.scores import checked_scores
from torch_dag_pruning.plan.selectors import Parts

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis
    from torch_dag_pruning.plan.plan import Plan


def resized_slots(
    plan: Plan, analysis: Analysis, sizes: Mapping[str, float], criterion: ImportanceCriterion
) -> dict[str, list[int]]:
    """Return the slots to keep of the orbits that are named; see `Plan.resized`."""
    parts, orbits = Parts(analysis), {orbit.key: orbit for orbit in analysis.orbits}
    scores = checked_scores(analysis, criterion)
    found: dict[str, list[int]] = {}
    for selector, wanted in sizes.items():
        for key in parts.made("sizes", selector):
            kept = plan.kept.get(key, tuple(range(orbits[key].n)))
            found[key] = _slots(scores[key], kept, _count(key, wanted, orbits[key].n))
    return found


def _count(key: str, wanted: Any, n: int) -> int:
    count = round(wanted * n) if type(wanted) is float and 0.0 <= wanted <= 1.0 else wanted
    if type(count) is not int or not 0 <= count <= n:
        message = f"orbit {key!r} can keep 0 to {n} slots, or a share from 0.0 to 1.0 of them, not {wanted!r}"
        raise PlanError(message)
    return count


def _slots(score: Tensor, kept: tuple[int, ...], count: int) -> list[int]:
    """Return the best slots, of which those that are kept come before all others."""
    return sorted(best_slots(score, score.numel()), key=lambda slot: slot not in kept)[:count]


def best_slots(score: Tensor, count: int) -> list[int]:
    """Return the slots with the highest scores, best first; of equal ones the first."""
    order: list[int] = score.sort(descending=True, stable=True).indices.tolist()
    return order[:count]
