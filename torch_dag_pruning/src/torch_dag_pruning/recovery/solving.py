"""The closed form: how weights and bias of one layer change so that its results are those of another graph.

With x the rows that the layer multiplies, and r what its results lack (the wanted results minus ``W x + b``), the best
change of the weights is ``D = Cov(r, x) (Cov(x) + lam I)^-1``, and the bias then grows by ``mean(r) - D mean(x)``. This
is least squares with a ridge towards the present weights: where nothing is lacking, nothing changes, however strong the
ridge is and however few rows there are. ``lam`` is ``alpha`` times the mean variance of the columns.
(OSSCAR, arXiv:2403.12983, solves the same problem for one layer; GRAIL, arXiv:2602.23795, with a ridge towards 0.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torch_dag_pruning.statistics.moments import Moments


@dataclass(frozen=True)
class Correction:
    """A change of one layer.

    Attributes:
        kind: ``"none"``, ``"mean"`` (of the bias only) or ``"least_squares"``.
        alpha: Strength of the ridge; None without least squares.
        weight: What is added to the matrix, of shape (groups, outs, columns); None for nothing.
        shift: What is added to the bias, of shape (groups, outs).
    """

    kind: str
    alpha: float | None
    weight: Tensor | None
    shift: Tensor

    def lacking(self, rows: Tensor, lacks: Tensor) -> Tensor:
        """Return what results still lack after this change."""
        left = lacks - self.shift[:, None]
        return left if self.weight is None else left - rows @ self.weight.mT


class Problem:
    """What one layer lacks, gathered over batches; solved at the end.

    Rows have the shape (groups, rows, columns), what they lack (groups, rows, outs).
    """

    def __init__(self) -> None:
        self._moments: Moments | None = None
        self._cross: Tensor | None = None
        self._total: Tensor | None = None
        self._held: list[tuple[Tensor, Tensor]] = []
        self._wanted: list[Tensor] = []

    def add(self, rows: Tensor, lacks: Tensor) -> None:
        """Take rows that solutions are fitted to."""
        rows, lacks = rows.to(torch.float64), lacks.to(torch.float64)
        found, cross, total = Moments.of(rows), lacks.mT @ rows, lacks.sum(1)
        if self._moments is None or self._cross is None or self._total is None:
            self._moments, self._cross, self._total = found, cross, total
        else:
            self._moments, self._cross, self._total = self._moments + found, self._cross + cross, self._total + total

    def hold(self, rows: Tensor, lacks: Tensor, wanted: Tensor) -> None:
        """Take rows that solutions are compared on, and the results that are wanted there."""
        if rows.shape[1]:
            self._held.append((rows.to(torch.float64), lacks.to(torch.float64)))
            self._wanted.append(wanted)

    @property
    def count(self) -> int:
        """The number of rows that solutions are fitted to."""
        return 0 if self._moments is None else self._moments.count

    def error(self, correction: Correction) -> float:
        """Return the sum of squares of what the held-out rows lack after a change."""
        return sum(float(correction.lacking(rows, lacks).square().sum()) for rows, lacks in self._held)

    def relative_error(self, correction: Correction) -> float:
        """Return the error relative to the variance of the wanted results; NaN without held-out rows."""
        if not self._held:
            return math.nan
        wanted = torch.cat(self._wanted, 1)
        spread = float((wanted - wanted.mean(1, keepdim=True)).square().sum())
        return self.error(correction) / spread if spread else 0.0

    def unchanged(self) -> Correction:
        """Return the change that changes nothing."""
        assert self._total is not None
        return Correction("none", None, None, torch.zeros_like(self._total))

    def mean(self) -> Correction:
        """Return the best change of the bias alone."""
        assert self._total is not None
        return Correction("mean", None, None, self._total / self.count)

    def least_squares(self, alpha: float) -> Correction:
        """Return the best change of weights and bias, under a ridge of strength ``alpha``."""
        assert self._moments is not None
        assert self._cross is not None
        mean, lacking = self._moments.mean, self.mean().shift
        covariance = self._moments.covariance
        cross = self._cross / self.count - lacking[:, :, None] * mean[:, None, :]
        weight = _divided(cross, covariance, alpha)
        shift = lacking - (weight @ mean[:, :, None]).squeeze(2)
        return Correction("least_squares", alpha, weight, shift)

    def best(self, alphas: Sequence[float]) -> Correction:
        """Return the change that is best on the held-out rows: never worse than folding the mean into the bias.

        Without held-out rows, the first of the alphas is taken. Larger ones are not tried after one that is worse.
        """
        if not self._held:
            return self.least_squares(alphas[0])
        candidates = [self.unchanged(), self.mean()]
        least = float("inf")
        for alpha in alphas:
            candidates.append(self.least_squares(alpha))
            error = self.error(candidates[-1])
            if error > least:
                break
            least = error
        return min(candidates, key=self.error)


def _divided(cross: Tensor, covariance: Tensor, alpha: float) -> Tensor:
    """Return ``cross (covariance + lam I)^-1`` for each group; the shortest solution where that is singular."""
    size = covariance.shape[-1]
    ridge = alpha * covariance.diagonal(dim1=1, dim2=2).mean(1)
    regular = covariance + ridge[:, None, None] * torch.eye(size, dtype=covariance.dtype, device=covariance.device)
    factor, info = torch.linalg.cholesky_ex(regular)
    if alpha > 0 and not bool(info.any()):
        solved: Tensor = torch.cholesky_solve(cross.mT, factor)
        return solved.mT
    inverse: Tensor = torch.linalg.pinv(regular, hermitian=True, rtol=size * torch.finfo(regular.dtype).eps)
    return cross @ inverse
