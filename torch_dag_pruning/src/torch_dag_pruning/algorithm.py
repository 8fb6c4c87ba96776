"""One-shot channel pruning behind the interface that all algorithms have."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from torch_dag_core.algorithms.algorithm import Losses
from torch_dag_core.algorithms.reports import Candidate, CompressionReport, Skipped
from torch_dag_core.algorithms.settings import choose, require_count
from torch_dag_core.errors import SettingsError
from torch_dag_pruning.analysis.analysis import Orbit, analyze
from torch_dag_pruning.masked.masked_model import masked_model
from torch_dag_pruning.plan.plan import Plan
from torch_dag_pruning.removal.removal import remove_channels

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule

_NAME = "channel-pruning"
_SCOPES = ("global", "local")


@dataclass(frozen=True, kw_only=True)
class OneShotConfig:
    """How many channels go, and which."""

    pruning_proportion: float = field(metadata={"help": "share of the FLOPs that stays, above 0 and up to 1"})
    criterion: str = field(default="l2", metadata={"help": "how slots are scored: l2, or what a plugin offers"})
    scope: str = field(default="global", metadata={"help": "global compares all orbits, local takes the same share"})
    multiple_of: int = field(default=1, metadata={"help": "widths become multiples of this"})
    verify: bool = field(default=True, metadata={"help": "compare the masked with the removed model at every vertex"})

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            SettingsError: names the setting and what it may be.
        """
        if not 0 < self.pruning_proportion <= 1:
            message = (
                f"pruning_proportion is the share of FLOPs that stays, above 0 and at most 1; "
                f"got {self.pruning_proportion!r}"
            )
            raise SettingsError(message)
        choose("scope", self.scope, _SCOPES)
        require_count("multiple_of", self.multiple_of)


class OneShotChannelPruning:
    """Scores the channels of a graph once and removes the least important ones.

    `prepare` returns the graph with masks, to measure what is lost; there is nothing to train in it, and `finalize`
    cuts the weights that the graph had at the start.
    """

    def __init__(self, dag: DagModule, config: OneShotConfig) -> None:
        """Analyse the graph and choose what stays.

        Raises:
            PlanError: the FLOPs cannot be reached (the message says how far down they go), or an unknown criterion.
        """
        self.config = config
        self._dag = dag
        self._analysis = analyze(dag)
        self.plan = Plan.by_importance(
            self._analysis,
            config.criterion,
            config.pruning_proportion,
            scope=config.scope,
            multiple_of=config.multiple_of,
        )

    def analyze(self) -> CompressionReport:
        """Return every orbit with the FLOPs that go with it, and what else is locked. Mutates nothing."""
        now = round(float(self._analysis.cost()))
        return CompressionReport(
            algorithm=_NAME,
            flops=now,
            reachable_flops=now - round(self._analysis.prunable_proportion * now),
            candidates=tuple(self._candidate(orbit, now) for orbit in self._analysis.orbits),
            skipped=tuple(
                Skipped(cause.vertex, round(float(flops)), f"{cause.op}: {cause.reason}")
                for cause, flops in self._analysis.locked.items()
            ),
        )

    def _candidate(self, orbit: Orbit, now: int) -> Candidate:
        goes = now - round(float(self._analysis.cost({orbit.atom.id: max(1, orbit.minimum)})))
        return Candidate(name=orbit.key, kind=f"{orbit.n} slots", flops=goes, removable=goes)

    def prepare(self) -> DagModule:
        """Return a copy in which the slots that go contribute nothing."""
        return masked_model(self._dag, self.plan, analysis=self._analysis)

    def losses(self, global_step: int) -> Losses:
        """Return the share of FLOPs that stays; nothing is learned, so all losses are 0."""
        del global_step
        left = float(self._analysis.cost(self.plan.atom_counts(self._analysis)))
        zero = torch.zeros(())
        return Losses(torch.tensor(left / float(self._analysis.cost())), zero, zero, zero)

    def finalize(self) -> DagModule:
        """Return a plain graph without the slots that go.

        Raises:
            RemovalError: an op cannot be made smaller.
            RemovalMismatchError: the result differs from the masked graph; names the first vertex.
        """
        return remove_channels(self._dag, self.plan, self.config.verify, analysis=self._analysis)
