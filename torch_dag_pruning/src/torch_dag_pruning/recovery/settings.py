"""How a pruned graph is repaired."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from torch_dag_core.algorithms.settings import choose, require_count
from torch_dag_core.errors import SettingsError

METHODS: Final = ("least_squares", "mean", "batch_norm")
TARGETS: Final = ("local", "residual")
BATCH_NORMS: Final = ("match", "estimate", "keep")
ALPHAS: Final = (1e-3, 1e-2, 1e-1, 1.0)

Progress = Callable[[int, int], None]
"""Called with the number of vertices that are done, and that of all."""


@dataclass(frozen=True, kw_only=True)
class RecoverySettings:
    """How a pruned graph is repaired.

    Attributes:
        method: ``"least_squares"`` solves weights and biases, ``"mean"`` biases only, ``"batch_norm"`` neither.
        alpha: Strength of the ridge relative to the mean variance of the columns, which pulls the weights towards
            what they are; None chooses one of `ALPHAS` for each layer by its error on held-out samples.
        target: What a layer in front of a residual addition is fitted to: ``"local"`` to what it gave in the
            reference; ``"residual"`` to what the sum needs, so that it corrects errors in the other operand too.
        batch_norm: ``"match"`` gives the results of batch norms the means and variances that they have in the
            reference; ``"estimate"`` sets their statistics to those of the calibration data, where
            those of the reference are close to them as well, and matches otherwise; ``"keep"`` does neither.
        positions: At most so many positions of each sample are looked at: pixels, or tokens.
        held_out: Share of the samples that solutions are compared on and not fitted to. At 0 nothing is compared.
        seed: Of the choice of positions.
        most_bytes: Bound on the memory for values and Gram matrices; none by default.
        progress: Called after each vertex.
    """

    method: str = "least_squares"
    alpha: float | None = None
    target: str = "residual"
    batch_norm: str = "estimate"
    positions: int = 24
    held_out: float = 0.2
    seed: int = 0
    most_bytes: int | None = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            SettingsError: names the setting and what it may be.
        """
        choose("method", self.method, METHODS)
        choose("target", self.target, TARGETS)
        choose("batch_norm", self.batch_norm, BATCH_NORMS)
        require_count("positions", self.positions)
        if self.alpha is not None and not (_is_real(self.alpha) and self.alpha >= 0):
            message = f"alpha must be a finite number of at least 0, or None, got {self.alpha!r}"
            raise SettingsError(message)
        if not (_is_real(self.held_out) and 0 <= self.held_out < 1):
            message = f"held_out is a share of the samples, from 0 to below 1; got {self.held_out!r}"
            raise SettingsError(message)

    @property
    def alphas(self) -> tuple[float, ...]:
        """The strengths that are tried."""
        return ALPHAS if self.alpha is None else (float(self.alpha),)


def _is_real(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
