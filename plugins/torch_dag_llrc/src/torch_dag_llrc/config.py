"""The settings of low-rank compression."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch_dag_core.algorithms.settings import LearnedCompressionConfig, choose, require_count, require_flag

SCHEMES = ("auto", "in", "out", "spatial", "tucker2")
GATES = ("ordered", "independent")
TRAININGS = ("local", "joint", "gates")


@dataclass(frozen=True, kw_only=True)
class LowRankConfig(LearnedCompressionConfig):
    """Settings of low-rank compression: how layers are factored, and how ranks are learned."""

    scheme: str = field(
        default="auto",
        metadata={"help": "in: 1x1 first, out: 1x1 last, spatial: column and row, tucker2, auto"},
    )
    gate: str = field(default="ordered", metadata={"help": "one gate a layer (ordered) or one a component"})
    rank_multiple: int = field(default=8, metadata={"help": "ranks are multiples of this"})
    share_siblings: bool = field(
        default=False, metadata={"help": "linear layers that read the same value share their first factor"}
    )
    train: str = field(default="joint", metadata={"help": "what is trained: local, joint or gates"})
    prune_stem: bool = field(default=True, metadata={"help": "factor layers before which there is no other"})
    prune_head: bool = field(default=True, metadata={"help": "factor layers after which there is no other"})

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            SettingsError: a setting has a wrong value; the message names it and what is allowed.
        """
        super().__post_init__()
        choose("scheme", self.scheme, SCHEMES)
        choose("gate", self.gate, GATES)
        choose("train", self.train, TRAININGS)
        require_count("rank_multiple", self.rank_multiple)
        for name in ("share_siblings", "prune_stem", "prune_head"):
            require_flag(name, getattr(self, name))
