"""The order in which the slots of all orbits go, one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from torch_dag_pruning.plan.isomorphism import isomorphic_classes

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis


@dataclass(frozen=True)
class Order:
    """All slots in the order in which they go. Within an orbit, the one with the lowest score goes first.

    Attributes:
        keys: Keys of the orbits.
        sizes: The number of slots of each orbit.
        going: For each slot, the index of its orbit in ``keys``.
        forced: So many of the first slots go in any case: those with the score ``-inf``.
        free: So many slots may go; those after them stay in any case, as their score is ``inf``.
    """

    keys: tuple[str, ...]
    sizes: Tensor
    going: Tensor
    forced: int
    free: int

    def counts(self, gone: int) -> dict[str, int]:
        """Return how many slots of each orbit stay when the first ``gone`` have gone."""
        left = self.sizes - torch.bincount(self.going[:gone], minlength=len(self.keys))
        return dict(zip(self.keys, left.tolist(), strict=True))


def removal_order(analysis: Analysis, worth: Mapping[str, Tensor], scope: str) -> Order:
    """Return the order in which slots go.

    Equal slots go turn by turn: the one before which the smaller share of the equal ones of its own orbit goes is
    first, so that many equal scores thin out all orbits evenly.

    Args:
        analysis: Of the graph.
        worth: The score of each slot, by orbit key.
        scope: A key of `SCOPES`.
    """
    keys = tuple(worth)
    sizes = torch.tensor([worth[key].numel() for key in keys], dtype=torch.long)
    if not keys:
        return Order((), sizes, sizes, 0, 0)
    owner = torch.repeat_interleave(torch.arange(len(keys)), sizes)
    values = torch.cat([worth[key] for key in keys])
    turns = torch.cat([_turns(worth[key]) for key in keys])
    certain = (values == torch.inf).long() - (values == -torch.inf).long()
    ranks = SCOPES[scope](analysis, _Slots(keys, owner, values, turns))
    order = _sorted_by(certain, ranks, turns, owner)
    return Order(keys, sizes, owner[order], int((certain < 0).sum()), int((certain <= 0).sum()))


@dataclass(frozen=True)
class _Slots:
    """All slots in the order of their orbits: the index of the orbit of each, its score, and its turn among equals."""

    keys: tuple[str, ...]
    owner: Tensor
    values: Tensor
    turns: Tensor


def _turns(score: Tensor) -> Tensor:
    """Return, for each slot of an orbit, which share of the slots with an equal score goes before it."""
    return _share_before(torch.unique(score, return_inverse=True)[1])


def _share_before(classes: Tensor, *keys: Tensor) -> Tensor:
    """Return, for each slot, which share of its class goes before it when the class is sorted by keys."""
    order = _sorted_by(classes, *keys)
    of, amounts = classes[order], torch.bincount(classes)
    starts = torch.cumsum(amounts, 0) - amounts
    shares = torch.empty(order.numel(), dtype=torch.float64)
    shares[order] = (torch.arange(order.numel()) - starts[of] + 0.5).double() / amounts[of]
    return shares


def _sorted_by(*keys: Tensor) -> Tensor:
    """Return the indices that sort by the first key, then by the second, and so on."""
    order = torch.arange(keys[0].numel())
    for key in reversed(keys):
        order = order[torch.argsort(key[order], stable=True)]
    return order


def _globally(_analysis: Analysis, slots: _Slots) -> Tensor:
    """Rank the slots of all orbits by their scores."""
    return slots.values


def _isomorphically(analysis: Analysis, slots: _Slots) -> Tensor:
    """Rank the slots of isomorphic orbits by their scores, and let the same share of every class go."""
    numbers = {key: number for number, keys in enumerate(isomorphic_classes(analysis).values()) for key in keys}
    classes = torch.tensor([numbers[key] for key in slots.keys])[slots.owner]
    return _share_before(classes, slots.values, slots.turns, slots.owner)


def _locally(_analysis: Analysis, slots: _Slots) -> Tensor:
    """Rank the slots of each orbit by their scores, and let the same share of every orbit go."""
    return _share_before(slots.owner, slots.values)


SCOPES: Final[Mapping[str, Callable[[Analysis, _Slots], Tensor]]] = {
    "global": _globally, "isomorphic": _isomorphically, "local": _locally,
}  # fmt: skip
