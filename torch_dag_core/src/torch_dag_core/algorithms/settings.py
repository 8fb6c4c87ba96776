"""The settings shared by all compression algorithms, and checks for settings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch_dag_core.errors import SettingsError

if TYPE_CHECKING:
    from torch import nn

    ModuleClasses = tuple[type[nn.Module], ...]
else:
    ModuleClasses = tuple[type, ...]  # the help of a command shows the settings' types without importing torch

COSTS = ("flops", "params", "latency")


def choose(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Check that a setting is one of ``choices``.

    Raises:
        SettingsError: it is not; the message names the setting and the choices.
    """
    if value not in choices:
        message = f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}"
        raise SettingsError(message)


def require_count(name: str, value: Any, *, least: int = 1) -> None:
    """Check that a setting is an integer of at least ``least``.

    Raises:
        SettingsError: it is not; the message names the setting.
    """
    if type(value) is not int or value < least:
        message = f"{name} must be an integer of at least {least}, got {value!r}"
        raise SettingsError(message)


def require_flag(name: str, value: Any) -> None:
    """Check that a setting is True or False.

    Raises:
        SettingsError: it is neither; the message names the setting.
    """
    if type(value) is not bool:
        message = f"{name} must be True or False, got {value!r}"
        raise SettingsError(message)


def require_amount(name: str, value: Any) -> None:
    """Check that a setting is a finite number of at least 0.

    Raises:
        SettingsError: it is not; the message names the setting.
    """
    if not _is_number(value) or value < 0:
        message = f"{name} must be a finite number of at least 0, got {value!r}"
        raise SettingsError(message)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def require_share(name: str, value: Any) -> None:
    """Check that a setting is a share of FLOPs to keep: above 0 and at most 1.

    Raises:
        SettingsError: it is not; the message names the setting.
    """
    if not _is_number(value) or not 0 < value <= 1:
        message = f"{name} is the share of FLOPs that stays, above 0 and at most 1; got {value!r}"
        raise SettingsError(message)


@dataclass(frozen=True, kw_only=True)
class CompressionConfig:
    """The settings of all compression algorithms."""

    keep_flops: float = field(metadata={"help": "share of the FLOPs that stays, above 0 and up to 1"})
    reference_flops: float | None = field(
        default=None, metadata={"help": "FLOPs that keep_flops is a share of; those of the model by default"}
    )

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            SettingsError: a setting has a wrong value; the message names it and what is allowed.
        """
        require_share("keep_flops", self.keep_flops)
        if self.reference_flops is not None and (not _is_number(self.reference_flops) or self.reference_flops <= 0):
            message = f"reference_flops must be a finite number above 0 or None, got {self.reference_flops!r}"
            raise SettingsError(message)


@dataclass(frozen=True, kw_only=True)
class LearnedCompressionConfig(CompressionConfig):
    """The settings of all compression algorithms that learn during training what to remove."""

    training_steps: int = field(metadata={"help": "steps over which the losses reach their full weight"})
    entropy_loss_weight: float = field(default=1.0, metadata={"help": "weight of the push towards yes or no"})
    flops_loss_weight: float = field(default=10.0, metadata={"help": "weight of the push towards the target"})
    anneal_losses: bool = field(default=True, metadata={"help": "let these weights grow over the steps"})
    ignore_classes: ModuleClasses = field(
        default=(), metadata={"help": "exact classes of modules that stay as they are"}
    )
    cost: str = field(default="flops", metadata={"help": "what the target counts: flops, params or latency"})

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            SettingsError: a setting has a wrong value; the message names it and what is allowed.
        """
        super().__post_init__()
        require_count("training_steps", self.training_steps)
        require_amount("entropy_loss_weight", self.entropy_loss_weight)
        require_amount("flops_loss_weight", self.flops_loss_weight)
        require_flag("anneal_losses", self.anneal_losses)
        choose("cost", self.cost, COSTS)
        object.__setattr__(self, "ignore_classes", module_classes("ignore_classes", self.ignore_classes))


def module_classes(name: str, given: Any) -> ModuleClasses:
    """Return one module class, or several, as a tuple.

    Raises:
        SettingsError: ``given`` contains something other than subclasses of nn.Module.
    """
    from torch import nn

    classes = tuple(given) if isinstance(given, Iterable) else (given,)
    for each in classes:
        if not (isinstance(each, type) and issubclass(each, nn.Module)):
            message = f"{name} must hold subclasses of nn.Module, got {each!r}"
            raise SettingsError(message)
    return classes
