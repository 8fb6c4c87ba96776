"""The settings of the algorithm, which the command line reads without importing torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

NAME = "int8-weights"


@dataclass(frozen=True, kw_only=True)
class WeightQuantizationConfig:
    """Settings of `WeightQuantization`."""

    ignore: tuple[str, ...] = field(default=(), metadata={"help": "names of vertices that stay as they are"})

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            ValueError: ``ignore`` is something other than a tuple of names.
        """
        given: Any = self.ignore
        if not isinstance(given, tuple) or not all(isinstance(name, str) for name in given):
            message = f"ignore must be a tuple of names of vertices, got {given!r}"
            raise ValueError(message)
