"""The settings that every compression has, and the checks that their own settings are made of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from torch_dag_core.errors import SettingsError

COSTS = ("flops", "params", "latency")


def choose(name: str, value: Any, choices: Sequence[str]) -> None:
    """Refuse a setting that is none of its choices.

    Raises:
        SettingsError: names the setting and the choices.
    """
    if value not in choices:
        message = f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}"
        raise SettingsError(message)


def require_count(name: str, value: Any, *, least: int = 1) -> None:
    """Refuse a setting that is no integer or too small.

    Raises:
        SettingsError: names the setting and what it may be.
    """
    if type(value) is not int or value < least:
        message = f"{name} must be an integer of at least {least}, got {value!r}"
        raise SettingsError(message)


def require_flag(name: str, value: Any) -> None:
    """Refuse a setting that is neither True nor False.

    Raises:
        SettingsError: names the setting.
    """
    if type(value) is not bool:
        message = f"{name} must be True or False, got {value!r}"
        raise SettingsError(message)


def require_amount(name: str, value: Any) -> None:
    """Refuse a setting that is no finite number of at least 0.

    Raises:
        SettingsError: names the setting.
    """
    if not _is_number(value) or value < 0:
        message = f"{name} must be a finite number of at least 0, got {value!r}"
        raise SettingsError(message)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


@dataclass(frozen=True, kw_only=True)
class CompressionConfig:
    """The settings that every compression has."""

    pruning_proportion: float = field(metadata={"help": "share of the cost that stays, above 0 and up to 1"})
    num_training_steps: int = field(metadata={"help": "steps over which the losses reach their full weight"})
    entropy_loss_weight: float = field(default=1.0, metadata={"help": "weight of the push towards yes or no"})
    flops_loss_weight: float = field(default=10.0, metadata={"help": "weight of the push towards the target"})
    anneal_losses: bool = field(default=True, metadata={"help": "let these weights grow over the steps"})
    custom_unprunable_module_classes: tuple[type[nn.Module], ...] = field(
        default=(), metadata={"help": "exact classes of modules that stay as they are"}
    )
    cost: str = field(default="flops", metadata={"help": "what the target counts: flops, params or latency"})
    reference_flops: float | None = field(
        default=None, metadata={"help": "FLOPs that pruning_proportion is a share of; those of the model by default"}
    )

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            SettingsError: names the setting and what it may be.
        """
        if not _is_number(self.pruning_proportion) or not 0 < self.pruning_proportion <= 1:
            got = repr(self.pruning_proportion)
            message = f"pruning_proportion is the share of cost that stays, above 0 and at most 1; got {got}"
            raise SettingsError(message)
        require_count("num_training_steps", self.num_training_steps)
        require_amount("entropy_loss_weight", self.entropy_loss_weight)
        require_amount("flops_loss_weight", self.flops_loss_weight)
        require_flag("anneal_losses", self.anneal_losses)
        choose("cost", self.cost, COSTS)
        if self.reference_flops is not None and (not _is_number(self.reference_flops) or self.reference_flops <= 0):
            message = f"reference_flops must be a finite number above 0 or None, got {self.reference_flops!r}"
            raise SettingsError(message)
        object.__setattr__(
            self, "custom_unprunable_module_classes", module_classes(self.custom_unprunable_module_classes)
        )


def module_classes(given: Any) -> tuple[type[nn.Module], ...]:
    """Return one or several module classes as a tuple.

    Raises:
        SettingsError: something else is among them.
    """
    classes = tuple(given) if isinstance(given, Iterable) else (given,)
    for each in classes:
        if not (isinstance(each, type) and issubclass(each, nn.Module)):
            message = f"custom_unprunable_module_classes must hold subclasses of nn.Module, got {each!r}"
            raise SettingsError(message)
    return classes
