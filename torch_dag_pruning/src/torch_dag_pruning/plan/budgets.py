"""What plans may cost: FLOPs, parameters and memory as shares of those of the graph, and time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from torch_dag_pruning.errors import PlanError
from torch_dag_pruning.plan.limits import Width
from torch_dag_pruning.plan.memory import PeakMemory
from torch_dag_pruning.plan.ordering import Order
from torch_dag_pruning.plan.scores import Cost

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis


@dataclass(frozen=True)
class Budget:
    """A bound on one cost of the graph that a plan leaves.

    Attributes:
        name: Name of the setting.
        limit: The largest cost that is allowed.
        cost: What the graph costs.
        shown: Turns a cost into text.
        unit: What that text is of.
        counts_all: Whether every slot adds to the cost. Otherwise slots that went without lowering it are given back.
    """

    name: str
    limit: float
    cost: Cost
    shown: Callable[[float], str]
    unit: str = ""
    counts_all: bool = True


def fitting_counts(analysis: Analysis, budgets: list[Budget], order: Order, widths: list[Width]) -> dict[str, int]:
    """Return how many slots of each orbit stay when as few slots go, in order, as all budgets need.

    One slot less (or, of an orbit with multiples, so many) would exceed a budget.

    Raises:
        PlanError: more slots must go than may; the message says how far down the cost goes.
    """
    search = _Search({orbit.key: orbit.atom.id for orbit in analysis.orbits}, budgets, order, widths)
    least = search.atom_counts(order.free, {})
    for budget in budgets:
        _require_reachable(budget, budget.cost(least), widths, order)
    held: dict[str, int] = {}
    gone = search.fewest(order.free, held)
    while gone > order.forced and not all(budget.counts_all for budget in budgets):
        # With one slot more of this orbit a budget would be exceeded; slots of others may come back.
        tight = order.keys[int(order.going[gone - 1])]
        held[tight] = search.counts(gone, held)[tight]
        gone = search.fewest(gone, held)
    return search.counts(gone, held)


@dataclass(frozen=True)
class _Search:
    """Finds out how many slots have to go."""

    atoms: Mapping[str, int]
    budgets: list[Budget]
    order: Order
    widths: list[Width]

    def counts(self, gone: int, held: Mapping[str, int]) -> dict[str, int]:
        """Return how many slots of each orbit stay when the first ``gone`` have gone; those of ``held`` are given."""
        left = self.order.counts(gone)
        return {width.key: held.get(width.key, width.allowed(left[width.key])) for width in self.widths}

    def atom_counts(self, gone: int, held: Mapping[str, int]) -> dict[int, int]:
        """Return the same by the ids of the atoms."""
        return {self.atoms[key]: count for key, count in self.counts(gone, held).items()}

    def fewest(self, enough: int, held: Mapping[str, int]) -> int:
        """Return how many slots have to go at least; ``enough`` is known to do."""
        too_few = self.order.forced - 1
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            counts = self.atom_counts(middle, held)
            fits = all(budget.cost(counts) <= budget.limit for budget in self.budgets)
            too_few, enough = (too_few, middle) if fits else (middle, enough)
        return enough


def _require_reachable(budget: Budget, least: float, widths: list[Width], order: Order) -> None:
    if least <= budget.limit:
        return
    held = sum(width.least == width.n for width in widths)
    notes = [f"{held} of {len(widths)} orbits are held back"] if held else []
    protected = order.going.numel() - order.free
    notes += [f"the criterion keeps {protected} slots in any case"] if protected else []
    why = f" ({'; '.join(notes)})" if notes else ""
    message = (
        f"{budget.name}: {budget.shown(budget.limit)}{budget.unit} cannot be reached: "
        f"with every orbit at its minimum {budget.shown(least)} stay{why}"
    )
    raise PlanError(message)


def _flops(analysis: Analysis) -> Cost:
    return lambda counts: float(analysis.cost(counts))


def _parameters(analysis: Analysis) -> Cost:
    return lambda counts: float(analysis.parameters_count(counts))


COSTS: Final[Mapping[str, Callable[[Analysis], Cost]]] = {
    "flops": _flops, "parameters": _parameters, "memory": PeakMemory,
}  # fmt: skip
_PEAKS: Final = frozenset({"memory"})
_UNITS: Final = {"flops": "FLOPs", "parameters": "parameters", "memory": "peak memory of activations"}


def share_of(analysis: Analysis, what: str, share: float) -> Budget:
    """Return the budget that keeps a share of a cost.

    Args:
        analysis: Of the graph.
        what: A key of `COSTS`.
        share: Above 0 and at most 1.
    """
    cost = COSTS[what](analysis)
    whole = cost({})
    return Budget(
        name=f"keep_{what}",
        limit=share * whole,
        cost=cost,
        shown=lambda value: f"{value / whole:.2%}",
        unit=f" of the {_UNITS[what]}",
        counts_all=what not in _PEAKS,
    )
