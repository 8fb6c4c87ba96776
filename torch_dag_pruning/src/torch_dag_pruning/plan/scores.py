"""Scores of slots as criteria return them: checked, and made comparable between orbits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torch_dag_core.plugins.calling import errors_attributed_to
from torch_dag_pruning.errors import PlanError
from torch_dag_pruning.plan.criteria import ImportanceCriterion
from torch_dag_pruning.plan.known_criteria import described, is_comparable, owner_of

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis, Orbit

Cost = Callable[[Mapping[int, int]], float]
"""Maps the number of kept slots, by the id of the atom, to what the graph then costs."""


def checked_scores(analysis: Analysis, criterion: ImportanceCriterion) -> dict[str, Tensor]:
    """Return the scores that a criterion gives the slots of every orbit, in double precision.

    A score of ``inf`` keeps its slot in every plan, and ``-inf`` drops it.

    Raises:
        PlanError: an orbit is not scored, one that does not exist is, an orbit has a wrong number of scores, or a score
            is NaN. The message names the criterion and the plugin that it comes from.
        PluginError: the criterion of a plugin raised something else.
    """
    with errors_attributed_to(owner_of(criterion), f"the criterion {criterion.name!r}"):
        scores: Any = criterion.score(analysis)
    if not isinstance(scores, Mapping):
        message = f"{described(criterion)} must return a mapping from orbit keys to scores, got {scores!r}"
        raise PlanError(message)
    sizes = {orbit.key: orbit.n for orbit in analysis.orbits}
    unknown = [key for key in scores if key not in sizes]
    if unknown:
        message = f"{described(criterion)} scores the orbit {unknown[0]!r}, which the graph does not have"
        raise PlanError(message)
    return {key: _checked(scores.get(key), key, n, criterion) for key, n in sizes.items()}


def _checked(score: Any, key: str, n: int, criterion: ImportanceCriterion) -> Tensor:
    if score is None:
        message = f"{described(criterion)} gives orbit {key!r} no scores; it must score every orbit"
        raise PlanError(message)
    if not isinstance(score, Tensor) or score.shape != (n,) or score.is_complex() or score.dtype == torch.bool:
        got = f"{score.dtype} of shape {tuple(score.shape)}" if isinstance(score, Tensor) else repr(score)
        message = f"{described(criterion)} must give orbit {key!r} a tensor of {n} real numbers, got {got}"
        raise PlanError(message)
    checked: Tensor = score.detach().to("cpu", torch.float64)
    bad = checked.isnan().nonzero().flatten().tolist()
    if bad:
        message = f"{described(criterion)} gives slot {bad[0]} of orbit {key!r} the score NaN"
        raise PlanError(message)
    return checked


def comparable(scores: Mapping[str, Tensor], criterion: ImportanceCriterion) -> dict[str, Tensor]:
    """Divide scores by the mean size of those of their orbit, unless they can be compared between orbits as they are.

    Infinite scores do not count for the mean, and stay as they are.
    """
    if is_comparable(criterion):
        return dict(scores)
    return {key: score / _mean_size(score) for key, score in scores.items()}


def _mean_size(score: Tensor) -> Tensor:
    finite = score[score.isfinite()].abs()
    return finite.mean().clamp_min(1e-300) if finite.numel() else torch.ones(())


def per_cost(orbits: tuple[Orbit, ...], scores: Mapping[str, Tensor], cost: Cost, *, far: bool) -> dict[str, Tensor]:
    """Divide scores by what goes with one slot of their orbit, relative to the cost of the whole graph.

    Args:
        orbits: Of the graph.
        scores: By orbit key.
        cost: What the graph costs.
        far: Whether the cost of a slot is taken from the removal of half of the orbit, for costs in which a single slot
            does not show; otherwise one slot is removed.
    """
    whole = cost({})
    return {o.key: scores[o.key] / max(_slot_share(o, cost, whole, far=far), 1e-300) for o in orbits}


def _slot_share(orbit: Orbit, cost: Cost, whole: float, *, far: bool) -> float:
    gone = max(1, orbit.n // 2) if far else 1
    return (1.0 - cost({orbit.atom.id: orbit.n - gone}) / whole) / gone
