"""Which slots stay within a budget: all slots in the order in which they go, and how many of them have to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from torch import Tensor

from torch_dag_pruning.errors import PlanError
from torch_dag_pruning.plan.budgets import COSTS, Budget, fitting_counts, share_of
from torch_dag_pruning.plan.criteria import ImportanceCriterion
from torch_dag_pruning.plan.known_criteria import described
from torch_dag_pruning.plan.limits import Limits, Width
from torch_dag_pruning.plan.ordering import SCOPES, removal_order
from torch_dag_pruning.plan.resizing import best_slots
from torch_dag_pruning.plan.scores import Cost, checked_scores, comparable, per_cost

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis

PRICES: Final = (None, *COSTS, "latency")


class Timing(Protocol):
    """A way to find the time that a graph takes."""

    def of(self, analysis: Analysis) -> Cost:
        """Return the milliseconds that the graph takes, as a function of the kept slots by atom id."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How slots are chosen from their scores. At least one budget must be given; a plan stays within all of them.

    Attributes:
        keep_flops: Fraction of FLOPs that may stay.
        keep_parameters: Fraction of parameters that may stay.
        latency_ms: Milliseconds that one call may take, on the device of ``latency``.
        latency: How the time of a graph is found, such as a `torch_dag_pruning.Latency`; needed for ``latency_ms`` and
            ``per="latency"``.
        keep_memory: Fraction of the peak memory of activations that may stay; see `PeakMemory`.
        scope: ``"global"``, ``"isomorphic"`` or ``"local"``; see `Plan.by_importance`.
        per: What scores are divided by: ``"flops"``, ``"parameters"``, ``"memory"`` or ``"latency"`` that go with a
            slot, or None.
        limits: What is held back, and bounds on the number of slots of orbits.
    """

    keep_flops: float | None = None
    keep_parameters: float | None = None
    keep_memory: float | None = None
    latency_ms: float | None = None
    latency: Timing | None = None
    scope: str = "global"
    per: str | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            PlanError: names the field and what it may be.
        """
        shares = self._shares
        for what, share in shares.items():
            _require_share(what, share)
        if not shares and self.latency_ms is None:
            names = [f"keep_{what}" for what in COSTS]
            message = f"a plan needs a budget: pass {' or '.join([*names, 'latency_ms'])}"
            raise PlanError(message)
        self._check_latency()
        if self.scope not in SCOPES:
            message = f"there is no scope {self.scope!r}; there are {', '.join(map(repr, SCOPES))}"
            raise PlanError(message)
        if self.per not in PRICES:
            message = f"per must be one of {', '.join(map(repr, PRICES))}, got {self.per!r}"
            raise PlanError(message)

    @classmethod
    def of(cls, **settings: Any) -> Choice:
        """Return the choice with these settings: the fields of this class and those of `Limits`.

        Raises:
            PlanError: a setting has a wrong value.
            TypeError: there is no setting of that name.
        """
        names = [each.name for each in dataclasses.fields(Limits)]
        limits = {name: settings.pop(name) for name in names if name in settings}
        return cls(**settings, limits=Limits.of(**limits))

    @property
    def _shares(self) -> dict[str, float]:
        """The shares to keep, by what they are shares of."""
        shares = {what: getattr(self, f"keep_{what}") for what in COSTS}
        return {what: share for what, share in shares.items() if share is not None}

    def budgets(self, analysis: Analysis) -> list[Budget]:
        """Return what a plan for this graph may cost."""
        budgets = [share_of(analysis, what, share) for what, share in self._shares.items()]
        if self.latency_ms is None:
            return budgets
        return [*budgets, Budget("latency_ms", self.latency_ms, self._time(analysis), lambda ms: f"{ms:.3g} ms")]

    def price(self, analysis: Analysis) -> Cost | None:
        """Return the cost that scores are divided by, if any."""
        if self.per is None:
            return None
        return self._time(analysis) if self.per == "latency" else COSTS[self.per](analysis)

    def _time(self, analysis: Analysis) -> Cost:
        assert self.latency is not None
        return self.latency.of(analysis)

    def _check_latency(self) -> None:
        if self.latency_ms is not None and not (type(self.latency_ms) in (int, float) and self.latency_ms > 0):
            message = f"latency_ms is the time that one call may take, above 0; got {self.latency_ms!r}"
            raise PlanError(message)
        if self.latency is None and (self.latency_ms is not None or self.per == "latency"):
            message = "latency is measured on a device; pass latency=torch_dag_pruning.Latency(on=...)"
            raise PlanError(message)


def _require_share(what: str, share: Any) -> None:
    if type(share) not in (int, float) or not 0.0 < share <= 1.0:
        message = f"keep_{what} is the fraction of {what} that stays, above 0 and at most 1; got {share!r}"
        raise PlanError(message)


def select(analysis: Analysis, criterion: ImportanceCriterion, choice: Choice) -> dict[str, list[int]]:
    """Return the slots that stay, by orbit key; see `Plan.by_importance`."""
    return select_within(analysis, criterion, choice, choice.limits.widths(analysis), choice.budgets(analysis))


def select_within(
    analysis: Analysis, criterion: ImportanceCriterion, choice: Choice, widths: list[Width], budgets: list[Budget]
) -> dict[str, list[int]]:
    """Return the slots that stay, by orbit key, within given widths and budgets instead of those of the choice."""
    scores = checked_scores(analysis, criterion)
    _require_enough_left(criterion, scores, analysis)
    worth = comparable(scores, criterion)
    price = choice.price(analysis)
    if price is not None:
        worth = per_cost(analysis.orbits, worth, price, far=choice.per == "latency")
    order = removal_order(analysis, worth, choice.scope)
    counts = fitting_counts(analysis, budgets, order, widths)
    return {key: best_slots(scores[key], count) for key, count in counts.items()}


def _require_enough_left(criterion: ImportanceCriterion, scores: Mapping[str, Tensor], analysis: Analysis) -> None:
    """Refuse scores that drop more slots than an orbit can do without."""
    for orbit in analysis.orbits:
        left = int((scores[orbit.key] > -math.inf).sum())
        if left < max(1, orbit.minimum):
            message = (
                f"{described(criterion)} drops all but {left} slots of orbit {orbit.key!r} (their scores are -inf), "
                f"which needs at least {max(1, orbit.minimum)}"
            )
            raise PlanError(message)
