"""The most slots that fit into a budget of FLOPs, given what each of them is worth."""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_dag_pruning.analysis.analysis import Analysis
from torch_dag_pruning.errors import PlanError
from torch_dag_pruning.plan.plan import Plan
from torch_dag_pruning.plan.slots import Slots


@dataclass(frozen=True)
class FlopsBudget:
    """A bound on the FLOPs of one graph.

    Attributes:
        analysis: Of the graph.
        slots: The slots that may be removed; those of other orbits stay.
        flops: The FLOPs that may stay.
    """

    analysis: Analysis
    slots: Slots
    flops: float

    def plan(self, worth: Tensor, units: Tensor | None = None, ties: Tensor | None = None) -> Plan:
        """Return the plan that drops the slots of the lowest worth, no more than needed.

        An orbit keeps at least one slot, and its minimum; one whose slots are all worth 0 or less may vanish if nothing
        needs it.

        Args:
            worth: One value for each slot.
            units: For each slot, the number of its unit within its orbit; the slots of a unit, which have the same
                worth, stay or go together. By default each slot is a unit.
            ties: Decides between units of equal worth, which otherwise go in order of their orbits; the same form.

        Raises:
            PlanError: the budget cannot be kept, or a worth is NaN.
        """
        worth = worth.detach().to("cpu", torch.float64)
        if bool(worth.isnan().any()):
            message = "the learned values of channels hold NaN; the training diverged"
            raise PlanError(message)
        order = _Order(self.slots, worth, units, ties)
        number = bisect.bisect_left(range(order.steps), 1, key=lambda gone: int(self._cost(order, gone) <= self.flops))
        if number == order.steps:
            whole, least = float(self.analysis.cost()), self._cost(order, order.steps - 1)
            message = f"{self.flops / whole:.2%} of the FLOPs cannot be reached, at least {least / whole:.2%} stay"
            raise PlanError(message)
        return Plan.keeping(self.analysis, order.kept(number))

    def _cost(self, order: _Order, gone: int) -> float:
        counts = order.counts(gone).tolist()
        return float(self.analysis.cost({o.atom.id: n for o, n in zip(self.slots.orbits, counts, strict=True)}))


class _Order:
    """The order in which units go: the lowest worth first, then the lowest tie-breaker."""

    def __init__(self, slots: Slots, worth: Tensor, units: Tensor | None, ties: Tensor | None) -> None:
        owner = slots.owner.cpu()
        own = slots.position.cpu() if units is None else units.cpu()
        key = owner * (int(own.max()) + 1 if len(own) else 1) + own
        _, self._unit = torch.unique(key, return_inverse=True)
        total = int(self._unit.max()) + 1 if len(key) else 0
        heights = torch.full((2, total), -torch.inf, dtype=torch.float64)
        each = torch.stack([worth, torch.zeros_like(worth) if ties is None else ties.detach().cpu().double()])
        heights.scatter_reduce_(1, self._unit.expand(2, -1), each, "amax")
        by_tie = heights[1].sort(stable=True).indices
        self._order = by_tie[heights[0][by_tie].sort(stable=True).indices]
        self._owners = torch.zeros(total, dtype=torch.int64).index_put((self._unit,), owner)
        self._lengths = torch.zeros(total, dtype=torch.int64).index_add(0, self._unit, torch.ones_like(owner))
        self._slots, self._worth, self._ties = slots, worth, each[1]
        self.least = self._least(slots, worth, owner)

    @staticmethod
    def _least(slots: Slots, worth: Tensor, owner: Tensor) -> Tensor:
        best = torch.full((len(slots.orbits),), -torch.inf, dtype=torch.float64)
        best.scatter_reduce_(0, owner, worth, "amax")
        needed = torch.tensor([orbit.minimum for orbit in slots.orbits], dtype=torch.int64)
        return torch.where(best > 0, needed.clamp_min(1), needed)

    @property
    def steps(self) -> int:
        """How many numbers of units can be gone, 0 and all included."""
        return len(self._order) + 1

    def counts(self, gone: int) -> Tensor:
        """Return how many slots each orbit keeps when ``gone`` units are gone."""
        first = self._order[:gone]
        sizes = torch.tensor(self._slots.sizes, dtype=torch.int64)
        return torch.maximum(sizes.index_add(0, self._owners[first], self._lengths[first], alpha=-1), self.least)

    def kept(self, gone: int) -> dict[str, list[int]]:
        """Return the slots that each orbit keeps when ``gone`` units are gone, the best of them."""
        place = torch.empty(len(self._order))
        place[self._order] = torch.arange(len(self._order), dtype=place.dtype)
        counts = self.counts(gone).tolist()
        parts = zip(
            self._slots.split(place[self._unit]).items(), self._slots.split(self._worth).values(),
            self._slots.split(self._ties).values(), counts, strict=True,
        )  # fmt: skip
        return {key: _highest((units, worth, ties), count) for (key, units), worth, ties, count in parts}


def _highest(keys: tuple[Tensor, ...], count: int) -> list[int]:
    """Return the ``count`` positions that come last in the order by the first key, then the second, and so on."""
    order = torch.arange(len(keys[0])).flip(0)
    for key in reversed(keys):
        order = order[key[order].sort(stable=True).indices]
    chosen: list[int] = order[len(order) - count :].tolist()
    return sorted(chosen)
