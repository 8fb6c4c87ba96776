"""Which rows solutions are compared on, and not fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_dag_pruning.statistics.batches import Batch

_FEWEST_SAMPLES = 10
"""With fewer samples, single rows are held out instead of whole samples."""


@dataclass(frozen=True)
class HeldOut:
    """A choice of samples that depends on their order only.

    Attributes:
        samples: For each batch, which samples are held out.
        by_row: Whether single rows are held out instead.
        every: One of so many is held out; 0 for none.
    """

    samples: Sequence[Tensor]
    by_row: bool
    every: int

    @classmethod
    def of(cls, batches: Sequence[Batch], share: float) -> HeldOut:
        """Return the choice of about this share of the samples."""
        every = max(2, round(1 / share)) if share else 0
        total = sum(batch.samples for batch in batches)
        flags = _every(torch.arange(total), every)
        return cls(torch.split(flags, [batch.samples for batch in batches]), total < _FEWEST_SAMPLES, every)

    def rows(self, number: int, shape: Sequence[int]) -> Tensor:
        """Return which rows of a batch are held out.

        Args:
            number: Of the batch.
            shape: How many rows there are: entries of the first dimension, and places of each.
        """
        entries, places = shape
        if self.by_row:
            return _every(torch.arange(entries * places), self.every)
        samples = self.samples[number]
        owner = torch.arange(entries) * samples.numel() // max(entries, 1)
        return samples[owner].repeat_interleave(places)

    def kept_samples(self, batches: Sequence[Batch]) -> list[Batch]:
        """Return batches of the held-out samples only; all samples where none, or single rows, are held out."""
        chosen = zip(batches, self._chosen(), strict=True)
        return [Batch(tuple(tensor[flags] for tensor in batch.inputs), None) for batch, flags in chosen if flags.any()]

    def of_values(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Return the same samples of a value, whose first dimension counts samples."""
        return [part[flags] for part, flags in zip(parts, self._chosen(), strict=True) if flags.any()]

    def _chosen(self) -> list[Tensor]:
        is_whole = self.by_row or not any(flags.any() for flags in self.samples)
        return [torch.ones_like(flags) if is_whole else flags for flags in self.samples]


def _every(numbers: Tensor, every: int) -> Tensor:
    return numbers % every == every - 1 if every else torch.zeros_like(numbers, dtype=torch.bool)
