"""One learned logit for each slot, with random masks in training: the modes of the original torch-dag."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torch_dag_pruning.plan.slots import Slots

LARGEST = 6.0
"""Logits are kept between minus and plus this."""
START = 3.0
TEMPERATURE = 0.5
LEAST_ENTROPY = 0.01


class Gates(nn.Module):
    """A logit for each slot; a slot stays if its logit is positive.

    Attributes:
        logits: One vector over the slots of all orbits.
        block: How many slots stay or go together; None for each by itself, 0 for whole orbits.
    """

    def __init__(self, slots: Slots, *, block: int | None) -> None:
        super().__init__()
        self.slots, self.block = slots, block
        self.logits = nn.Parameter(torch.full((len(slots),), START))

    def masks(self, generator: torch.Generator) -> Tensor:
        """Return random masks: Gumbel softmax over (logit, 0) at temperature 0.5.

        Each mask is replaced by 1 with the mean probability of its orbit's slots to stay. Logits outside of [-6, 6] are
        moved back to it first, in place, because a logit that is only clipped there would receive no gradient.
        """
        with torch.no_grad():
            self.logits.clamp_(-LARGEST, LARGEST)
        draws = torch.rand(2, len(self.slots), generator=generator).to(self.logits.device)
        uniform = draws[0].clamp(1e-6, 1 - 1e-6)
        noise = uniform.log() - (-uniform).log1p()  # the difference of two Gumbel variables
        soft = ((self.logits + noise) / TEMPERATURE).sigmoid()
        open_share = self.slots.means(self.logits.detach().sigmoid())[self.slots.owner]
        return torch.where(draws[1] < open_share, torch.ones_like(soft), soft)

    def counts(self) -> Tensor:
        """Return the expected number of slots of each orbit, differentiable; a block counts by its largest logit."""
        if self.block is None:
            return self.slots.sums(self.logits.sigmoid())
        return torch.stack([self._expected(part) for part in self.slots.split(self.logits).values()])

    def _expected(self, logits: Tensor) -> Tensor:
        step = self._step(len(logits))
        highest = logits.sort(descending=True, stable=True).values[::step].sigmoid()
        lengths = torch.full_like(highest, step)
        lengths[-1] = len(logits) - step * (len(highest) - 1)
        return (highest * lengths).sum()

    def _step(self, size: int) -> int:
        return min(self.block or size, size)

    def units(self) -> Tensor | None:
        """Return the number of the block of each slot within its orbit; None if each slot is one."""
        if self.block is None:
            return None
        steps = torch.tensor([self._step(size) for size in self.slots.sizes], device=self.slots.owner.device)
        return self.slots.ranks(self.logits.detach()) // steps[self.slots.owner]

    def worth(self) -> Tensor:
        """Return the logits: slots with a positive one are to stay."""
        return self.logits.detach()

    def entropy(self) -> Tensor:
        """Return the mean over orbits of the mean entropy of their slots' decisions, in nats; at least 0.01 each."""
        probability = self.logits.sigmoid()
        entropy = nn.functional.softplus(self.logits) - self.logits * probability
        return self.slots.means(entropy).clamp_min(LEAST_ENTROPY).mean()
