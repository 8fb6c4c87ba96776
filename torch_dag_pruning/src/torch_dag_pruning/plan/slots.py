"""All slots that may be removed as one vector, which is cheaper to compute with than one vector for each orbit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from torch_dag_pruning.analysis.analysis import Orbit


class Slots:
    """The slots of some orbits, one orbit after the other.

    Attributes:
        orbits: The orbits.
        sizes: Number of slots of each orbit.
        owner: For each slot, the number of its orbit.
        position: For each slot, its number within its orbit.
    """

    def __init__(self, orbits: Sequence[Orbit]) -> None:
        self.orbits = tuple(orbits)
        self.sizes = [orbit.n for orbit in self.orbits]
        sizes = torch.tensor(self.sizes, dtype=torch.int64)
        self.owner = torch.repeat_interleave(torch.arange(len(self.sizes)), sizes)
        self.starts = torch.cumsum(sizes, 0) - sizes
        self.position = torch.arange(len(self.owner)) - self.starts[self.owner]

    def __len__(self) -> int:
        return len(self.owner)

    def to(self, device: torch.device) -> Slots:
        """Move the index vectors to a device, in place."""
        self.owner, self.starts, self.position = (
            tensor.to(device) for tensor in (self.owner, self.starts, self.position)
        )
        return self

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """Return the part of each orbit, by its key, of a vector with one value for each slot."""
        return dict(zip((orbit.key for orbit in self.orbits), torch.split(values, self.sizes), strict=True))

    def joined(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return one vector of the values of each orbit; the inverse of `split`."""
        return torch.cat([parts[orbit.key] for orbit in self.orbits]) if self.orbits else torch.zeros(0)

    def sums(self, values: Tensor) -> Tensor:
        """Return the sum over the slots of each orbit, of shape (orbits,); differentiable."""
        return values.new_zeros(len(self.orbits)).index_add(0, self.owner, values)

    def means(self, values: Tensor) -> Tensor:
        """Return the mean over the slots of each orbit, of shape (orbits,); differentiable."""
        return self.sums(values) / torch.tensor(self.sizes, dtype=values.dtype, device=values.device)

    def ranks(self, scores: Tensor) -> Tensor:
        """Return the rank of each slot within its orbit: 0 for the highest score; the first of equal ones wins."""
        order = scores.sort(descending=True, stable=True).indices
        order = order[self.owner[order].sort(stable=True).indices]
        ranks = torch.empty_like(order)
        ranks[order] = self.position
        return ranks

    def counts(self, per_orbit: Tensor) -> dict[int, Tensor]:
        """Return a vector with one number for each orbit as scalars by the id of the atom, for `Analysis.cost`."""
        return dict(zip((orbit.atom.id for orbit in self.orbits), per_orbit.unbind(), strict=True))
