"""Importance by what data says of slots: moments of what reads them, and gradients of their masks.

Scores of one orbit add up over everything that reads it. Scores by moments are relative to the variance of the results
of each layer.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor

from torch_dag_pruning.errors import PlanError
from torch_dag_pruning.plan.criteria import Magnitude
from torch_dag_pruning.plan.slot_columns import Reading, readings
from torch_dag_pruning.plan.surgeon import removal_costs
from torch_dag_pruning.statistics.statistics import Statistics

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis, Orbit


@dataclass(frozen=True)
class DataCriterion(ABC):
    """Base of the criteria that look at data.

    Attributes:
        statistics: Of the graph; None until they are known.
        name: What users call the criterion.
        needs_gradients: Whether the statistics must hold gradients of masks.
        is_comparable: Whether scores of different orbits can be compared.
    """

    statistics: Statistics | None = None
    name: ClassVar[str]
    needs_gradients: ClassVar[bool] = False
    is_comparable: ClassVar[bool] = False

    def given(self, statistics: Statistics) -> Self:
        """Return the criterion with statistics of the graph."""
        return dataclasses.replace(self, statistics=statistics)

    def score(self, analysis: Analysis) -> dict[str, Tensor]:
        """Return one score for each slot, by orbit key.

        Raises:
            PlanError: there are no statistics.
            CalibrationError: the statistics are of another graph, or lack gradients.
        """
        if self.statistics is None:
            message = (
                f"the criterion {self.name!r} looks at data; pass statistics=Statistics.collect(analysis, batches)"
            )
            raise PlanError(message)
        return self.of(analysis, self.statistics)

    @abstractmethod
    def of(self, analysis: Analysis, statistics: Statistics) -> dict[str, Tensor]:
        """Return the scores, given statistics."""


class Taylor(DataCriterion):
    """Mean size of the derivative of a sample's loss by a slot's mask (first order, arXiv:1906.10771)."""

    name = "taylor"
    needs_gradients = True
    is_comparable = True

    def of(self, analysis: Analysis, statistics: Statistics) -> dict[str, Tensor]:
        """Return ``E |dL/dm|``."""
        gradients = statistics.mask_gradients().absolute
        return {orbit.key: gradients[orbit.key] / statistics.samples for orbit in analysis.orbits}


class Fisher(DataCriterion):
    """Mean square of that derivative: the diagonal of the mask's empirical Fisher matrix (arXiv:1801.05787)."""

    name = "fisher"
    needs_gradients = True
    is_comparable = True

    def of(self, analysis: Analysis, statistics: Statistics) -> dict[str, Tensor]:
        """Return ``E (dL/dm)^2``."""
        gradients = statistics.mask_gradients().square
        return {orbit.key: gradients[orbit.key] / statistics.samples for orbit in analysis.orbits}


class MagnitudeFisher(DataCriterion):
    """Fisher times the L2 norm over its mean in the orbit: Fisher compares orbits, the norm ranks within one."""

    name = "l2_fisher"
    needs_gradients = True
    is_comparable = True

    def of(self, analysis: Analysis, statistics: Statistics) -> dict[str, Tensor]:
        """Return the product."""
        norms = Magnitude("l2").score(analysis)
        fisher = Fisher().of(analysis, statistics)
        return {key: fisher[key] * norm / norm.mean().clamp_min(1e-300) for key, norm in norms.items()}


class ColumnCriterion(DataCriterion):
    """Base of the criteria that sum a score of columns over everything that reads a slot."""

    def of(self, analysis: Analysis, statistics: Statistics) -> dict[str, Tensor]:
        """Return the sums."""
        return {orbit.key: self._orbit(analysis, statistics, orbit) for orbit in analysis.orbits}

    def _orbit(self, analysis: Analysis, statistics: Statistics, orbit: Orbit) -> Tensor:
        total = torch.zeros(orbit.n, dtype=torch.float64)
        for reading in readings(analysis, statistics, orbit):
            norms = reading.weight.square().sum(0)
            each = (self.moment(reading) * norms)[reading.columns].sum(1)
            total.index_add_(0, reading.slots, each / max(reading.spread, 1e-300))
        return total

    @abstractmethod
    def moment(self, reading: Reading) -> Tensor:
        """Return what the squared weights of each column are multiplied by."""


class Variance(ColumnCriterion):
    """Variance of what a slot adds to results: the error that is left once its mean is in the bias.

    As in FLAP (arXiv:2312.11983) and VBP (arXiv:2507.12988).
    """

    name = "variance"

    def moment(self, reading: Reading) -> Tensor:
        """Return the variances of the columns."""
        return reading.covariance.diagonal()


class Activation(ColumnCriterion):
    """Mean square of what a slot adds to results (Wanda, arXiv:2306.11695, for whole slots)."""

    name = "wanda"

    def moment(self, reading: Reading) -> Tensor:
        """Return the mean squares of the columns."""
        return reading.second


class Surgeon(DataCriterion):
    """What it adds to the error to remove a slot and solve the other weights anew, after all that go before it.

    Errors are relative to the variance of each reader's results. Slots that no learned layer reads, such as those of
    queries and keys, are scored by their share of the squares of the orbit's weights: what they would add to the error
    if slots were independent and of the same variance.
    """

    name = "obs"
    is_comparable = True

    def of(self, analysis: Analysis, statistics: Statistics) -> dict[str, Tensor]:
        """Return the largest cost so far when the slot goes, so that slots rank in the order in which they go."""
        norms = Magnitude("l2").score(analysis)
        return {orbit.key: self._orbit(analysis, statistics, orbit, norms[orbit.key]) for orbit in analysis.orbits}

    def _orbit(self, analysis: Analysis, statistics: Statistics, orbit: Orbit, norms: Tensor) -> Tensor:
        found = readings(analysis, statistics, orbit)
        if not found:
            squares = norms.to("cpu", torch.float64).square()
            return squares / squares.sum().clamp_min(1e-300)
        order, costs = removal_costs(found, orbit.n)
        ranks = torch.arange(orbit.n, dtype=torch.float64)
        rising = costs.clamp_min(0.0).cummax(0).values * (1 + 1e-12 * ranks)
        return torch.zeros(orbit.n, dtype=torch.float64).index_copy(0, torch.tensor(order), rising)


BY_DATA: tuple[DataCriterion, ...] = (
    Taylor(), Fisher(), MagnitudeFisher(), Variance(), Activation(), Surgeon(),
)  # fmt: skip
