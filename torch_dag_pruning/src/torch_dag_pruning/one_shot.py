"""One-shot channel pruning: the least important channels go at once, without training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_dag_core.algorithms.algorithm import AlgorithmSpec, Losses
from torch_dag_core.algorithms.compression import CompressionAlgorithm
from torch_dag_core.algorithms.reports import Candidate, CompressionReport, Skipped
from torch_dag_core.algorithms.settings import CompressionConfig, choose, require_count, require_flag
from torch_dag_core.analysis.random_inputs import random_input
from torch_dag_core.errors import InputError, SettingsError
from torch_dag_core.graph.dag import DagModule
from torch_dag_pruning.analysis.analysis import Analysis, Orbit, analyze
from torch_dag_pruning.cut import Cut
from torch_dag_pruning.masking.masking import Masking
from torch_dag_pruning.plan.plan import Plan
from torch_dag_pruning.removal.proof import Proof

_SCOPES = ("global", "local")


@dataclass(frozen=True, kw_only=True)
class OneShotConfig(CompressionConfig):
    """How many channels go, and which."""

    criterion: str = field(
        default="l2", metadata={"help": "how slots are scored: l1, l2, random, or what a plugin offers"}
    )
    scope: str = field(default="global", metadata={"help": "global compares all orbits, local takes the same share"})
    multiple_of: int = field(default=1, metadata={"help": "widths become multiples of this"})
    verify: bool = field(default=True, metadata={"help": "compare the masked with the removed model at every vertex"})
    save_plan: Path | None = field(
        default=None, metadata={"help": "where to write what was kept, as JSON", "output": True}
    )

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            SettingsError: names the setting and what it may be.
        """
        super().__post_init__()
        choose("scope", self.scope, _SCOPES)
        require_count("multiple_of", self.multiple_of)
        require_flag("verify", self.verify)
        if self.save_plan is not None and not Path(self.save_plan).parent.is_dir():
            message = f"save_plan: there is no folder {str(Path(self.save_plan).parent)!r}"
            raise SettingsError(message)


@dataclass(frozen=True, kw_only=True)
class ChannelReport(CompressionReport):
    """Every orbit with the FLOPs that go with it.

    Attributes:
        text: What can go in total, and what locks the rest.
    """

    text: str

    def __str__(self) -> str:
        table = CompressionReport.__str__(dataclasses.replace(self, skipped=()))
        return f"{table}\n{self.text}"


class OneShotChannelPruning(CompressionAlgorithm):
    """Scores the channels of a graph once and removes the least important ones.

    Nothing has to be trained: `finalize` may follow at once. The prepared graph may be trained all the same, with the
    slots that go masked; then the trained weights are cut.

    Attributes:
        analysis: Of a copy of the graph, whose weights are those of the prepared graph.
        plan: Which slots stay.
        proof: Masked against removed, after `finalize`; None before, and where ``verify`` is off.
    """

    name: ClassVar[str] = "channel-pruning"
    config_type = OneShotConfig
    config: OneShotConfig

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        """Analyse the graph and choose what stays.

        Args:
            *arguments: The graph, the shape of one sample, and the share of FLOPs that stays: see
                `CompressionAlgorithm`.
            **settings: The fields of `OneShotConfig`, by name.

        Raises:
            SettingsError: a setting is wrong.
            PlanError: the FLOPs cannot be reached (the message says how far down they go), or an unknown criterion.
        """
        super().__init__(*arguments, **settings)
        self.plan = Plan.by_importance(
            self.analysis, self.config.criterion, self._share, scope=self.config.scope,
            multiple_of=self.config.multiple_of,
        )  # fmt: skip
        self.proof: Proof | None = None

    @cached_property
    def analysis(self) -> Analysis:
        """The analysis of a copy of the graph, which is trained and cut."""
        return analyze(self.model.clone(), _example(self.model, self.input_shape))

    @cached_property
    def cut(self) -> Cut:
        """The plan, carried out on that copy."""
        return Cut(self.analysis, self.plan)

    @cached_property
    def _report(self) -> ChannelReport:
        now = round(float(self.analysis.cost()))
        return ChannelReport(
            algorithm=self.name,
            flops=now,
            reachable_flops=now - round(self.analysis.removable_share * now),
            candidates=tuple(self._candidate(orbit, now) for orbit in self.analysis.orbits),
            skipped=tuple(
                Skipped(cause.vertex, round(float(flops)), f"{cause.op}: {cause.reason}")
                for cause, flops in self.analysis.locked.items()
            ),
            text=str(self.analysis),
        )

    def _candidate(self, orbit: Orbit, now: int) -> Candidate:
        goes = now - round(float(self.analysis.cost({orbit.atom.id: max(1, orbit.minimum)})))
        return Candidate(name=orbit.key, kind=f"{orbit.n} slots", flops=goes, removable=goes)

    @property
    def _share(self) -> float:
        """The share of the FLOPs of this graph that may stay."""
        if self.config.reference_flops is None:
            return self.config.keep_flops
        return min(1.0, self.target_flops / self._report.flops)

    def require_reachable(self, report: CompressionReport) -> None:
        """Leave it to the choice of the plan, which also knows what rounding widths costs."""

    def analyze(self) -> ChannelReport:
        """Return every orbit with the FLOPs that go with it, and what else is locked. Mutates nothing."""
        return self._report

    def prepare(self) -> DagModule:
        """Return a copy in which the slots that go contribute nothing."""
        masking = Masking(self.analysis)
        masking.update({key: self.plan.mask(key) for key in self.plan.kept})
        return masking.dag

    def losses(self, global_step: int) -> Losses:
        """Return the share of FLOPs that stays; nothing is learned, so there are no terms."""
        del global_step
        left = float(self.analysis.cost(self.plan.atom_counts(self.analysis)))
        return Losses(torch.tensor(left / float(self.analysis.cost())))

    def finalize(self) -> DagModule:
        """Return a plain graph without the slots that go, and save the plan if ``save_plan`` says where.

        Raises:
            RemovalError: an op cannot be made smaller.
            RemovalMismatchError: the result differs from the masked graph; names the first vertex.
        """
        removed = self.cut.removed()
        self.proof = self.cut.prove(removed) if self.config.verify else None
        if self.config.save_plan is not None:
            self.plan.save(self.config.save_plan)
        return removed

    def conclusion(self) -> str:
        """Return how far the masked and the removed graph are apart."""
        return "" if self.proof is None else str(self.proof)


def _example(model: DagModule, shape: tuple[int, ...]) -> Tensor | None:
    """Return random inputs of a shape, two samples; None where that is the shape which the graph remembers.

    Raises:
        InputError: the graph takes several tensors, so that one shape does not describe them.
    """
    specs = model.input_spec.tensors
    if specs and (specs[0].example_shape or ())[1:] == shape and all(spec.example_shape for spec in specs):
        return None
    if len(model.input_vertices) > 1:
        message = f"the graph takes {len(model.input_vertices)} tensors, of which input_shape describes one; pass None"
        raise InputError(message)
    return random_input((2, *shape), specs[0].dtype if specs else torch.float32)


SPEC = AlgorithmSpec(
    name=OneShotChannelPruning.name,
    summary="Remove the least important channels at once, without training.",
    config=OneShotConfig,
    create=OneShotChannelPruning.from_config,
    trains=False,
)
