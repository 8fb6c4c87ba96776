"""The settings of block pruning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch_dag_core.algorithms.settings import LearnedCompressionConfig, choose, require_count
from torch_dag_core.errors import SettingsError

UNITS = ("residual", "gate", "span")
SHORTCUTS = ("any", "identity")
SELECTIONS = ("learned", "ilp", "iterative")
IMPORTANCES = ("recoverability", "taylor", "bi")


@dataclass(frozen=True, kw_only=True)
class BlockPruningConfig(LearnedCompressionConfig):
    """Settings of block pruning: which blocks can be removed, and how they are selected."""

    units: tuple[str, ...] = field(
        default=("residual",), metadata={"help": "what may be cut: residual (operands of sums), gate (of products)"}
    )
    shortcut: str = field(
        default="any",
        metadata={"help": "identity: the block's own input stays; any: or its projection"},
    )
    select: str = field(default="learned", metadata={"help": "how blocks are chosen: learned, ilp or iterative"})
    importance: str = field(
        default="recoverability", metadata={"help": "a block's worth: recoverability, taylor or bi"}
    )
    max_removed: int | None = field(default=None, metadata={"help": "the most blocks that may go, or none for all"})

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            SettingsError: a setting has a wrong value; the message names it and what is allowed.
        """
        super().__post_init__()
        units = _names(self.units)
        for unit in units:
            choose("units", unit, UNITS)
        if not units or len(set(units)) < len(units):
            message = f"units must name at least one kind of block and each once, got {self.units!r}"
            raise SettingsError(message)
        object.__setattr__(self, "units", units)
        choose("shortcut", self.shortcut, SHORTCUTS)
        choose("select", self.select, SELECTIONS)
        choose("importance", self.importance, IMPORTANCES)
        if self.max_removed is not None:
            require_count("max_removed", self.max_removed)


def _names(given: Any) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given)
