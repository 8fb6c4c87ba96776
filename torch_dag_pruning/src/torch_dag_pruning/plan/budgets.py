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
    """

    name: str
    limit: float
    cost: Cost
    shown: Callable[[float], str]
    unit: str = ""


def fitting_counts(analysis: Analysis, budgets: list[Budget], order: Order, widths: list[Width]) -> dict[str, int]:
    """Return how many slots of each orbit stay when as few slots go, in order, as all budgets need.

    One slot less (or, of an orbit with multiples, so many) would exceed a budget.

    Raises:
        PlanError: more slots must go than may; the message says how far down the cost goes.
    """
    atoms = {orbit.key: orbit.atom.id for orbit in analysis.orbits}

    def counts_at(gone: int) -> dict[str, int]:
        left = order.counts(gone)
        return {width.key: width.allowed(left[width.key]) for width in widths}

    def fits(gone: int) -> bool:
        counts = {atoms[key]: count for key, count in counts_at(gone).items()}
        return all(budget.cost(counts) <= budget.limit for budget in budgets)

    least = counts_at(order.free)
    for budget in budgets:
        _require_reachable(budget, budget.cost({atoms[key]: count for key, count in least.items()}), widths, order)
    too_few, enough = order.forced - 1, order.free
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if fits(middle) else (middle, enough)
    return counts_at(enough)


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
    return Budget(f"keep_{what}", share * whole, cost, lambda value: f"{value / whole:.2%}", f" of the {_UNITS[what]}")
