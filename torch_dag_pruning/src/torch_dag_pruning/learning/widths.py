"""One learned width for each orbit, whose slots are ranked by a running score (DMS, arXiv:2405.07194)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torch_dag_pruning.plan.slots import Slots

DECAY = 0.99
"""Of the running mean of squared derivatives."""
WINDOW = 0.25
"""Length of the window at the start, relative to the orbit."""


class RankedWidths(nn.Module):
    """The share of its slots that each orbit keeps, and the order in which they go.

    The mask of a slot falls linearly from 1 to 0 as the width passes its rank, within a window of some slots, so that
    the derivative of the loss by a width is the mean derivative by the masks in the window. Slots are ranked by
    ``prior * E[(m dL/dm)^2]``, a running mean over training steps.

    Attributes:
        widths: The share of slots to keep, one for each orbit, between 0 and 1.
        window: Length of the window relative to the orbit; below one slot, masks are nearly hard.
    """

    fisher: Tensor
    weight: Tensor
    prior: Tensor
    rank: Tensor
    _sizes: Tensor
    _least: Tensor

    def __init__(self, slots: Slots, prior: Tensor) -> None:
        """Start with all slots.

        Args:
            slots: The slots.
            prior: Importance of each slot before any training.
        """
        super().__init__()
        self.slots, self.window = slots, WINDOW
        self.widths = nn.Parameter(torch.ones(len(slots.orbits)))
        prior = prior.float()
        self.register_buffer("prior", prior)
        self.register_buffer("fisher", torch.zeros_like(prior))
        self.register_buffer("weight", torch.zeros_like(prior))
        self.register_buffer("rank", slots.ranks(prior))
        least = torch.tensor([max(1, orbit.minimum) for orbit in slots.orbits], dtype=torch.float32)
        self.register_buffer("_sizes", torch.tensor(slots.sizes, dtype=torch.float32), persistent=False)
        self.register_buffer("_least", least, persistent=False)

    def masks(self, generator: torch.Generator) -> Tensor:
        """Return the masks; nothing is random."""
        del generator
        with torch.no_grad():
            self.widths.clamp_(self._least / self._sizes, torch.ones_like(self._sizes))
        length = (self.window * self._sizes).clamp_min(1.0)[self.slots.owner]
        count = self.counts()[self.slots.owner]
        return ((count - self.rank - 1) / length + 1).clamp(0.0, 1.0)

    def counts(self) -> Tensor:
        """Return the number of slots of each orbit, as real numbers; differentiable."""
        return self.widths * self._sizes

    def units(self) -> None:
        """Return None: each slot is a unit."""
        return

    def worth(self) -> Tensor:
        """Return how far the width reaches beyond each slot, plus 1; so every slot is worth something."""
        share = (self.rank + 0.5) / self._sizes[self.slots.owner]
        return self.widths.detach()[self.slots.owner] - share + 1.0

    @torch.no_grad()
    def observe(self, masks: Tensor, gradient: Tensor) -> None:
        """Take the derivative of the loss by the masks of one step into account, and rank the slots anew."""
        seen = (masks > 0).to(gradient.dtype)
        pace = (1 - DECAY) * seen
        self.fisher.lerp_((masks * gradient).square(), pace)
        self.weight.lerp_(torch.ones_like(pace), pace)
        self.rank.copy_(self.slots.ranks(self.prior * self.fisher / self.weight.clamp_min(1e-12)))

    @torch.no_grad()
    def narrow(self, by: float) -> None:
        """Reduce all widths by the same share of their orbits, as far as they go."""
        self.widths.sub_(by).clamp_(self._least / self._sizes, torch.ones_like(self._sizes))
