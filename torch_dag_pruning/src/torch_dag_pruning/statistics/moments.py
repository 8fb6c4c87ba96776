"""Sums over rows from which means and covariances follow; they can be added."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torch_dag_pruning.processes import summed


@dataclass(frozen=True)
class Moments:
    """First and second moments of rows, in double precision, for each group of columns.

    Attributes:
        count: Number of rows.
        total: Sum of the rows, of shape (groups, columns).
        gram: Sum of the outer products of the rows with themselves, of shape (groups, columns, columns).
    """

    count: int
    total: Tensor
    gram: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Moments:
        """Return the moments of rows of shape (groups, rows, columns)."""
        rows = rows.to(torch.float64)
        return cls(rows.shape[1], rows.sum(1), rows.mT @ rows)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.gram + other.gram)

    def over_processes(self) -> Moments:
        """Return the sum over the processes of ``torch.distributed``."""
        return Moments(int(summed(torch.tensor(self.count))), summed(self.total), summed(self.gram))

    @property
    def mean(self) -> Tensor:
        """The mean row of each group."""
        return self.total / self.count

    @property
    def covariance(self) -> Tensor:
        """The covariance matrix of the columns of each group, of shape (groups, columns, columns)."""
        return self.gram / self.count - self.mean[:, :, None] * self.mean[:, None, :]

    @property
    def second(self) -> Tensor:
        """The mean square of each column, of shape (groups, columns)."""
        return self.gram.diagonal(dim1=1, dim2=2) / self.count
