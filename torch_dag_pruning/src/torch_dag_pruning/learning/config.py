"""The settings of learned channel pruning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from torch_dag_core.algorithms.settings import (
    LearnedCompressionConfig,
    choose,
    require_amount,
    require_count,
    require_flag,
)
from torch_dag_core.errors import SettingsError
from torch_dag_pruning.recovery.settings import METHODS

MODES: Final = ("ranked", "default", "block_snpe", "whole_block")
RECOVERIES: Final = (*METHODS, "none")


@dataclass(frozen=True, kw_only=True)
class LearnedChannelConfig(LearnedCompressionConfig):
    """The settings of `LearnedChannelPruning`."""

    mode: str = field(
        default="ranked",
        metadata={
            "help": "ranked learns one width for each orbit; default a logit for each channel, block_snpe for blocks "
            "of channels, whole_block for whole orbits"
        },
    )
    block_size: int = field(default=8, metadata={"help": "channels of a block in block_snpe"})
    criterion: str = field(default="l2", metadata={"help": "how channels are ranked before anything is learned"})
    warm_share: float = field(
        default=0.2, metadata={"help": "ranked: share of the steps over which the target is tightened"}
    )
    freeze_at: float | None = field(
        default=None,
        metadata={"help": "share of the steps after which the choice stands; 0.7 for ranked, else 1 by default"},
    )
    mask_rate: float | None = field(
        default=None, metadata={"help": "learning rate of what is learned about channels; by default from the steps"}
    )
    own_optimizer: bool = field(
        default=True,
        metadata={"help": "let step() train it; else it is a parameter of the network, for your optimizer"},
    )
    prune_stem: bool = field(default=True, metadata={"help": "whether layers that read the inputs may be pruned"})
    seed: int = field(default=0, metadata={"help": "of the random masks"})
    recover: str = field(
        default="least_squares", metadata={"help": "how weights are repaired after the cut, with data; or none"}
    )
    verify: bool = field(default=True, metadata={"help": "compare the masked with the removed model at every vertex"})

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            SettingsError: a setting has a wrong value; the message names it and what is allowed.
        """
        super().__post_init__()
        choose("mode", self.mode, MODES)
        choose("recover", self.recover, RECOVERIES)
        choose("cost", self.cost, ("flops",))
        require_count("block_size", self.block_size)
        require_count("seed", self.seed, least=0)
        for name in ("own_optimizer", "prune_stem", "verify"):
            require_flag(name, getattr(self, name))
        if self.mask_rate is not None:
            require_amount("mask_rate", self.mask_rate)
        require_amount("warm_share", self.warm_share)
        require_amount("freeze_at", self.frozen_share)
        if not self.warm_share <= self.frozen_share <= 1.0:
            message = (
                f"warm_share and freeze_at must be ascending and at most 1, got {self.warm_share} and "
                f"{self.frozen_share}"
            )
            raise SettingsError(message)

    @property
    def frozen_share(self) -> float:
        """The share of the steps after which the choice stands."""
        if self.freeze_at is not None:
            return self.freeze_at
        return 0.7 if self.mode == "ranked" else 1.0

    @property
    def freeze_step(self) -> int:
        """The number of steps after which the choice stands."""
        return round(self.frozen_share * self.training_steps)

    @property
    def rate(self) -> float:
        """The learning rate of what is learned about channels, for Adam.

        By default a logit can get from 3 to -3 twice until the freeze, and a width half of the way from 1 to 0; all
        widths together move with the target anyway.
        """
        if self.mask_rate is not None:
            return self.mask_rate
        return (0.5 if self.mode == "ranked" else 12.0) / max(self.freeze_step, 1)
