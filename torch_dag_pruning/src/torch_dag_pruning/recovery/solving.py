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
        self._forget()

    def _forget(self) -> None:
        """Drop what was computed from fewer rows."""
        self._errors: dict[tuple[str, float | None], float] = {}
        self._centred: tuple[Tensor, Tensor] | None = None

    def add(self, rows: Tensor, lacks: Tensor) -> None:
        """Take rows that solutions are fitted to."""
        self._forget()
        rows, lacks = rows.to(torch.float64), lacks.to(torch.float64)
        found, cross, total = Moments.of(rows), lacks.mT @ rows, lacks.sum(1)
        if self._moments is None or self._cross is None or self._total is None:
            self._moments, self._cross, self._total = found, cross, total
        else:
            self._moments, self._cross, self._total = self._moments + found, self._cross + cross, self._total + total

    def hold(self, rows: Tensor, lacks: Tensor, wanted: Tensor) -> None:
        """Take rows that solutions are compared on, and the results that are wanted there."""
        self._forget()
        if rows.shape[1]:
            self._held.append((rows.to(torch.float64), lacks.to(torch.float64)))
            self._wanted.append(wanted)

    @property
    def count(self) -> int:
        """The number of rows that solutions are fitted to."""
        return 0 if self._moments is None else self._moments.count

    def error(self, correction: Correction) -> float:
        """Return the sum of squares of what the held-out rows lack after a change; each is computed once."""
        key = (correction.kind, correction.alpha)
        if key not in self._errors:
            parts = (correction.lacking(rows, lacks) for rows, lacks in self._held)
            self._errors[key] = sum(float(part.square().sum()) for part in parts)
        return self._errors[key]

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

    def _covariances(self) -> tuple[Tensor, Tensor]:
        """Return Cov(x), and Cov(r, x) with x the rows and r what they lack."""
        assert self._moments is not None
        assert self._cross is not None
        if self._centred is None:
            cross = self._cross / self.count - self.mean().shift[:, :, None] * self._moments.mean[:, None, :]
            self._centred = self._moments.covariance, cross
        return self._centred

    def least_squares(self, alpha: float) -> Correction:
        """Return the best change of weights and bias, under a ridge of strength ``alpha``."""
        assert self._moments is not None
        covariance, cross = self._covariances()
        weight = _divided(cross, covariance, alpha)
        shift = self.mean().shift - (weight @ self._moments.mean[:, :, None]).squeeze(2)
        return Correction("least_squares", alpha, weight, shift)

    def best(self, alphas: Sequence[float]) -> Correction:
        """Return the change that is best on the held-out rows: never worse than folding the mean into the bias.

        Without held-out rows, the first of the alphas is taken. Otherwise the search starts in their middle and goes on
        upwards, or downwards if that is worse, as long as it gets better.
        """
        if not self._held:
            return self.least_squares(alphas[0])
        candidates = [self.unchanged(), self.mean()]
        middle = len(alphas) // 2 - (len(alphas) > 1)
        best = self._tried(candidates, alphas[middle:])
        if best == alphas[middle]:
            self._tried(candidates, alphas[:middle][::-1])
        return min(candidates, key=self.error)

    def _tried(self, candidates: list[Correction], alphas: Sequence[float]) -> float | None:
        """Try alphas in their order until one is worse than the one before; return the best of them."""
        best: Correction | None = None
        for alpha in alphas:
            candidates.append(self.least_squares(alpha))
            if best is not None and self.error(candidates[-1]) > self.error(best):
                break
            best = candidates[-1]
        return None if best is None else best.alpha


def _divided(cross: Tensor, covariance: Tensor, alpha: float) -> Tensor:
    """Return ``cross (covariance + lam I)^-1`` for each group; the shortest solution where that is singular."""
    size = covariance.shape[-1]
    ridge = alpha * covariance.diagonal(dim1=1, dim2=2).mean(1)
    regular = covariance.clone()
    regular.diagonal(dim1=1, dim2=2).add_(ridge[:, None])
    factor, info = torch.linalg.cholesky_ex(regular)
    if alpha > 0 and not bool(info.any()):
        solved: Tensor = torch.cholesky_solve(cross.mT, factor)
        return solved.mT
    inverse: Tensor = torch.linalg.pinv(regular, hermitian=True, rtol=size * torch.finfo(regular.dtype).eps)
    return cross @ inverse
