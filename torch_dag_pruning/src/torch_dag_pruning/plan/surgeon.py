"""Optimal brain surgeon: which slot costs least to remove if the others then take its place as well as they can.

Removing the columns J of a layer, and solving its other weights anew, raises the mean square error of its results by
``tr(W_J [(Cov^-1)_JJ]^-1 W_J')``. Afterwards ``Cov^-1`` and ``W`` are those of the columns that are left, so that the
next slot costs exactly what it adds (Hassibi and Stork 1993; for whole columns as in OSSCAR, arXiv:2403.12983).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_dag_pruning.plan.slot_columns import Reading

DAMPING = 1e-6
"""What is added to the variances, relative to their mean, so that covariances can be inverted."""


@dataclass
class _Layer:
    """One reading while slots are removed from it."""

    slots: Tensor
    columns: Tensor
    weight: Tensor
    inverse: Tensor
    scale: float

    @classmethod
    def of(cls, reading: Reading, damping: float, *, relative: bool) -> _Layer:
        size = reading.covariance.shape[0]
        ridge = damping * reading.covariance.diagonal().mean().clamp_min(1e-300)
        inverse = torch.linalg.inv(reading.covariance + ridge * torch.eye(size, dtype=torch.float64))
        scale = max(reading.spread, 1e-300) if relative else 1.0
        return cls(reading.slots, reading.columns, reading.weight.clone(), inverse, scale)

    def costs(self, n: int) -> Tensor:
        """Return what each slot costs, 0 for those that are not read here."""
        blocks = self.inverse[self.columns[:, :, None], self.columns[:, None, :]]
        weights = self.weight[:, self.columns].permute(1, 2, 0)
        each = (weights * torch.linalg.solve(blocks, weights)).sum((1, 2)) / self.scale
        return torch.zeros(n, dtype=torch.float64).index_copy(0, self.slots, each)

    def remove(self, slot: int) -> None:
        at = (self.slots == slot).nonzero().flatten()
        if not at.numel():
            return
        columns = self.columns[at[0]]
        across = self.inverse[:, columns]
        step = torch.linalg.solve(self.inverse[columns][:, columns], across.T)
        self.weight -= self.weight[:, columns] @ step
        self.inverse -= across @ step
        left = self.slots != slot
        self.slots, self.columns = self.slots[left], self.columns[left]


def removal_costs(
    readings: Sequence[Reading], n: int, *, damping: float = DAMPING, relative: bool = True
) -> tuple[list[int], Tensor]:
    """Remove all slots of an orbit, always the one that costs least.

    Args:
        readings: What reads the orbit; costs add up over them.
        n: The number of slots.
        damping: See `DAMPING`.
        relative: Whether costs are relative to the variance of each layer's results.

    Returns:
        The slots in the order in which they go, and what each of them adds to the mean square error.
    """
    layers = [_Layer.of(reading, damping, relative=relative) for reading in readings]
    gone = torch.zeros(n, dtype=torch.bool)
    order: list[int] = []
    costs: list[Tensor] = []
    for _ in range(n):
        total = sum((layer.costs(n) for layer in layers), start=torch.zeros(n, dtype=torch.float64))
        slot = int(total.masked_fill(gone, torch.inf).argmin())
        order.append(slot)
        costs.append(total[slot])
        gone[slot] = True
        for layer in layers:
            layer.remove(slot)
    return order, torch.stack(costs)
