"""Optimal brain surgeon: which slot costs least to remove if the others then take its place as well as they can.

Removing the columns J of a layer, and solving its other weights anew, raises the mean square error of its results by
``tr(W_J [(Cov^-1)_JJ]^-1 W_J')``. Afterwards ``Cov^-1`` and ``W`` are those of the columns that are left, so that the
next slot costs exactly what it adds (Hassibi and Stork 1993; for whole columns as in OSSCAR, arXiv:2403.12983).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torch_dag_pruning.plan.slot_columns import Reading

DAMPING = 1e-6
"""What is added to the variances, relative to their mean, so that covariances can be inverted."""


PANEL = 64
"""After how many removed columns the matrices are brought up to date."""


class _Layer:
    """One reading while slots are removed from it.

    Let Z be ``Cov^-1`` with W below. Removing the columns q turns it into ``Z - Z_q S`` where ``S = (Cov^-1)_qq^-1
    (Cov^-1)_q``. The costs need no more than the diagonal blocks of ``Cov^-1`` and of ``W'W``, so only those follow
    every removal; Z follows after `PANEL` columns, by one matrix product.
    """

    def __init__(self, reading: Reading, damping: float, *, relative: bool) -> None:
        self._slots, self._columns = reading.slots, reading.columns
        self._size = reading.covariance.shape[0]
        self._scale = max(reading.spread, 1e-300) if relative else 1.0
        ridge = damping * reading.covariance.diagonal().mean().clamp_min(1e-300)
        inverse = torch.linalg.inv(reading.covariance + ridge * torch.eye(self._size, dtype=torch.float64))
        self._both = torch.cat([inverse, reading.weight])
        self._gone: list[Tensor] = []
        self._steps: list[Tensor] = []
        self._bring_up_to_date()

    def _bring_up_to_date(self) -> None:
        """Carry out what is pending, and compute the blocks anew so that rounding errors do not add up."""
        if self._gone:
            self._both.addmm_(torch.cat(self._gone, 1), torch.cat(self._steps), alpha=-1.0)
            self._gone, self._steps = [], []
        each = self._both[self._size :][:, self._columns].permute(1, 2, 0)
        self._grams = each @ each.mT
        self._blocks = self._both[self._columns[:, :, None], self._columns[:, None, :]]

    def costs(self, n: int) -> Tensor:
        """Return what each slot costs, 0 for those that are not read here."""
        each = torch.linalg.solve(self._blocks, self._grams).diagonal(dim1=1, dim2=2).sum(1) / self._scale
        return torch.zeros(n, dtype=torch.float64).index_copy(0, self._slots, each)

    def remove(self, slot: int) -> None:
        """Remove the columns of a slot; nothing happens if it is not read here."""
        at = (self._slots == slot).nonzero().flatten()
        if not at.numel():
            return
        columns = self._columns[at[0]]
        left = self._slots != slot
        self._slots, self._columns = self._slots[left], self._columns[left]
        self._blocks, self._grams = self._blocks[left], self._grams[left]
        self._take_out(columns)
        if sum(gone.shape[1] for gone in self._gone) >= PANEL:
            self._bring_up_to_date()

    def _take_out(self, columns: Tensor) -> None:
        gone = self._both[:, columns]
        pending = (torch.cat(self._gone, 1), torch.cat(self._steps)) if self._gone else None
        if pending is not None:
            gone = gone - pending[0] @ pending[1][:, columns]
        inverse, weight = gone[: self._size], gone[self._size :]
        step = torch.linalg.solve(inverse[columns], inverse.T)
        products = weight.T @ self._both[self._size :]
        if pending is not None:
            products -= (weight.T @ pending[0][self._size :]) @ pending[1]
        self._update_blocks(inverse, step, products - (weight.T @ weight / 2) @ step)
        self._gone.append(gone)
        self._steps.append(step)

    def _update_blocks(self, inverse: Tensor, step: Tensor, products: Tensor) -> None:
        steps = step[:, self._columns].movedim(1, 0)
        change = products[:, self._columns].movedim(1, 0).mT @ steps
        self._blocks -= inverse[self._columns] @ steps
        self._grams -= change + change.mT


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
    layers = [_Layer(reading, damping, relative=relative) for reading in readings]
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
