"""What kind of run of a model is recorded."""

from __future__ import annotations

from dataclasses import dataclass

from torch_dag_core.tracing.disguise import Disguise


@dataclass(frozen=True)
class RunSettings:
    """What kind of run of a model is recorded.

    Attributes:
        training: Whether the model runs in training mode.
        repeats: Whether the model runs once more in any case, to see whether it computes the same.
        most_calls: After how many recorded entries the model is given up; None for any number.
        disguise: Wrong values that sizes show to what cannot be followed.
    """

    training: bool
    repeats: bool = False
    most_calls: int | None = None
    disguise: Disguise | None = None
