"""Pruning in steps: after each, what is left is repaired, analysed and scored anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from torch_dag_core.algorithms.settings import choose, require_count
from torch_dag_core.graph.dag import DagModule
from torch_dag_pruning.analysis.analysis import Analysis
from torch_dag_pruning.cut import Cut
from torch_dag_pruning.errors import PlanError
from torch_dag_pruning.plan.budgets import Budget
from torch_dag_pruning.plan.criteria import ImportanceCriterion
from torch_dag_pruning.plan.known_criteria import looks_at_data, needs_gradients, with_statistics
from torch_dag_pruning.plan.limits import Width
from torch_dag_pruning.plan.plan import Plan
from torch_dag_pruning.plan.selection import Choice, select_within
from torch_dag_pruning.statistics.statistics import Statistics


def _geometric(share: float, progress: float) -> float:
    """Let the same share of what is left stay in every step."""
    return float(share**progress)


def _linear(share: float, progress: float) -> float:
    """Let equal parts of the whole go in every step."""
    return 1.0 - (1.0 - share) * progress


SHAPES: Final[Mapping[str, Callable[[float, float], float]]] = {"geometric": _geometric, "linear": _linear}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """In which steps a budget is reached.

    Attributes:
        steps: How many.
        shape: ``"geometric"`` keeps the same share of what is left in each, ``"linear"`` removes equal parts.
    """

    steps: int = 1
    shape: str = "geometric"

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            SettingsError: names the field and what it may be.
        """
        require_count("steps", self.steps)
        choose("schedule", self.shape, tuple(SHAPES))

    def share(self, target: float, step: int) -> float:
        """Return which share of the whole stays after a step, counted from 1, on the way to a target share."""
        return target if step == self.steps else SHAPES[self.shape](target, step / self.steps)


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """What is done in each step.

    Attributes:
        criterion: Scores the slots.
        choice: Budgets and limits, of the whole graph.
        schedule: In which steps the budgets are reached.
        again: Analyses a graph that a step left.
        batches: Data for criteria that look at it and for the repair; may be empty.
        recover: How weights are repaired after a step; None leaves them.
        verify: Whether each step's graph is compared with its masked one.
        progress: Called after a step with the number of steps that are done, and that of all.
    """

    criterion: ImportanceCriterion
    choice: Choice
    schedule: Schedule
    again: Callable[[DagModule], Analysis]
    batches: Sequence[Any] = ()
    recover: str | None = None
    verify: bool = True
    progress: Callable[[int, int], None] | None = None

    def run(self, analysis: Analysis) -> LastStep:
        """Prune a graph in all steps but the last, and choose the slots of that.

        Raises:
            PlanError: a budget cannot be reached, or a step left other orbits than it should.
            RemovalMismatchError: what a step left differs from the masked graph.
        """
        widths, now, whole = self.choice.limits.widths(analysis), analysis, Plan.whole(analysis)
        budgets = self.choice.budgets(analysis)
        for step in range(1, self.schedule.steps):
            wide = _not_alone(widths)
            cut = Cut(now, self._plan(now, wide, self._bounds(budgets, now, wide, step)))
            whole = whole.then(cut.plan)
            now = self._left(Cut(analysis, whole), cut)
            widths = _of_what_is_left(widths, now)
            if self.progress is not None:
                self.progress(step, self.schedule.steps)
        cut = Cut(now, self._plan(now, widths, self._bounds(budgets, now, widths, self.schedule.steps)))
        return LastStep(whole.then(cut.plan), cut)

    def _plan(self, analysis: Analysis, widths: list[Width], budgets: list[Budget]) -> Plan:
        criterion = with_statistics(self.criterion, self._statistics(analysis))
        return Plan.keeping(analysis, select_within(analysis, criterion, self.choice, widths, budgets))

    def _statistics(self, analysis: Analysis) -> Statistics | None:
        if not looks_at_data(self.criterion) or not self.batches:
            return None
        loss = "outputs" if needs_gradients(self.criterion) else None
        return Statistics.collect(analysis, self.batches, loss=loss)  # type: ignore[arg-type]

    def _bounds(self, budgets: list[Budget], analysis: Analysis, widths: list[Width], step: int) -> list[Budget]:
        """Return the budgets of a step, for the graph that the steps before it left."""
        orbits = {orbit.key: orbit.atom.id for orbit in analysis.orbits}
        least = {orbits[width.key]: width.least for width in widths}
        return [
            dataclasses.replace(whole, cost=now.cost, limit=self._limit(whole, now.cost(least), step))
            for whole, now in zip(budgets, self.choice.budgets(analysis), strict=True)
        ]

    def _limit(self, whole: Budget, least: float, step: int) -> float:
        """Return the bound of a step; steps before the last may not get below ``least``."""
        if step == self.schedule.steps:
            return whole.limit
        everything = whole.cost({})
        return max(least, everything * self.schedule.share(min(1.0, whole.limit / everything), step))

    def _left(self, whole: Cut, step: Cut) -> Analysis:
        """Return the analysis of what a step leaves, repaired so that it resembles the graph before all steps."""
        removed = step.removed()
        if self.verify:
            step.prove(removed)
        if self.recover is not None and self.batches:
            removed = whole.recover(removed, self.batches, method=self.recover).dag
        analysis = self.again(removed)
        found, wanted = {orbit.key: orbit.n for orbit in analysis.orbits}, step.plan.counts()
        if found != wanted:
            key = next(key for key in (*wanted, *found) if wanted.get(key) != found.get(key))
            message = (
                f"after a step, orbit {key!r} has {found.get(key, 'no')} slots, not {wanted.get(key, 'none')}; "
                "prune this graph in one step"
            )
            raise PlanError(message)
        return analysis


@dataclass(frozen=True)
class LastStep:
    """The result of all steps but the last, which is chosen and not carried out.

    Attributes:
        plan: The slots of the whole graph that stay after all steps.
        cut: The last step, for the graph that the others left.
    """

    plan: Plan
    cut: Cut


def _not_alone(widths: list[Width]) -> list[Width]:
    """Keep two slots of each orbit: a single one would not be an orbit any more, which changes the names of others."""
    return [dataclasses.replace(w, least=max(w.least, min(2, w.n)), most=max(w.most, min(2, w.n))) for w in widths]


def _of_what_is_left(widths: list[Width], analysis: Analysis) -> list[Width]:
    left = {orbit.key: orbit.n for orbit in analysis.orbits}
    return [
        dataclasses.replace(width, n=left[width.key], least=min(width.least, left[width.key]),
                            most=min(width.most, left[width.key]))
        for width in widths
    ]  # fmt: skip
