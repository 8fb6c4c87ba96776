"""One-shot channel pruning: the least important channels are removed at once, without training."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
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
from torch_dag_pruning.analysis.analysis import Analysis, Orbit
from torch_dag_pruning.cut import Cut
from torch_dag_pruning.errors import LatencyError, PlanError
from torch_dag_pruning.latency.latency import Latency
from torch_dag_pruning.masking.masking import Masking
from torch_dag_pruning.plan.known_criteria import criterion_named, looks_at_data, needs_gradients
from torch_dag_pruning.plan.ordering import SCOPES
from torch_dag_pruning.plan.outputs import analyze_freed, kept_outputs
from torch_dag_pruning.plan.plan import Plan
from torch_dag_pruning.plan.selection import PRICES, Choice
from torch_dag_pruning.recovery.recovery import Recovery
from torch_dag_pruning.recovery.settings import METHODS
from torch_dag_pruning.removal.proof import Proof
from torch_dag_pruning.statistics.statistics import Statistics

_RECOVERIES = (*METHODS, "none")
_SHOWN = 20
_OTHER_BUDGETS = ("keep_parameters", "keep_memory", "latency_ms")
_CHOICE = ("scope", "per", "multiple_of", "ignore", "only", "kinds", "bounds")
_PRICES = tuple(price for price in PRICES if price is not None)


@dataclass(frozen=True, kw_only=True)
class OneShotConfig(CompressionConfig):
    """Settings of `OneShotChannelPruning`.

    Selectors name layers: ``"layer1"`` (with all that is inside), patterns such as ``"blocks.*.attn"``, ``"re:..."``,
    ``"class:Conv2d"``, ``"@stem"``, ``"@head"`` or ``"conv1.weight:0"``; in Python also classes of modules. See
    `torch_dag_pruning.plan.selectors`.
    """

    keep_flops: float = field(  # type: ignore[assignment]
        default=None, metadata={"help": "share of the FLOPs that stays, above 0 and up to 1"}
    )
    keep_parameters: float | None = field(
        default=None, metadata={"help": "share of the parameters that stays, above 0 and up to 1"}
    )
    keep_memory: float | None = field(
        default=None, metadata={"help": "share of the peak memory of activations that stays, above 0 and up to 1"}
    )
    latency_ms: float | None = field(
        default=None, metadata={"help": "milliseconds that one call may take, measured op by op on a device"}
    )
    latency_on: str = field(default="cpu", metadata={"help": "the device: cpu, cuda, cuda:1, or what a plugin offers"})
    latency_table: Path | None = field(
        default=None, metadata={"help": "file that measured times are read from and added to"}
    )
    latency_batch: int = field(default=1, metadata={"help": "samples in a call that is measured"})
    criterion: str = field(
        default="l2",
        metadata={
            "help": "how slots are scored: l1, l2, bn_scale, fpgm, random; with data taylor, fisher, l2_fisher, "
            "variance, wanda, obs; or what a plugin offers"
        },
    )
    scope: str = field(
        default="global",
        metadata={"help": "global compares all orbits, isomorphic those of one kind, local takes the same share"},
    )
    per: str | None = field(
        default=None, metadata={"help": "what scores are divided by: flops, parameters, memory or latency"}
    )
    multiple_of: int | tuple[str, ...] = field(
        default=1, metadata={"help": "widths become multiples of this; SELECTOR=NUMBER,... for some of them"}
    )
    ignore: tuple[str, ...] = field(default=(), metadata={"help": "selectors of layers that stay as they are"})
    only: tuple[str, ...] = field(default=(), metadata={"help": "selectors of the layers whose outputs are pruned"})
    kinds: tuple[str, ...] = field(
        default=(), metadata={"help": "what is pruned: widths, heads, head_widths, groups; all by default"}
    )
    bounds: tuple[str, ...] = field(
        default=(), metadata={"help": "SELECTOR=LEAST..MOST,...: how many slots stay, or with a point which share"}
    )
    free: tuple[str, ...] = field(
        default=(), metadata={"help": "selectors of layers whose channels may go although the graph returns them"}
    )
    verify: bool = field(default=True, metadata={"help": "compare the masked with the removed model at every vertex"})
    recover: str = field(
        default="least_squares",
        metadata={"help": "how weights are repaired with data: least_squares, mean, batch_norm, none"},
    )
    save_plan: Path | None = field(
        default=None, metadata={"help": "where to write what was kept, as JSON", "output": True}
    )

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            SettingsError: a setting has a wrong value; the message names it and what is allowed.
        """
        self._complete_budgets(self.keep_flops)
        super().__post_init__()
        choose("scope", self.scope, tuple(SCOPES))
        choose("recover", self.recover, _RECOVERIES)
        if self.per is not None:
            choose("per", self.per, _PRICES)
        if isinstance(self.multiple_of, int):
            require_count("multiple_of", self.multiple_of)
        self._require_choice()
        require_flag("verify", self.verify)
        if self.save_plan is not None and not Path(self.save_plan).parent.is_dir():
            message = f"save_plan: there is no folder {str(Path(self.save_plan).parent)!r}"
            raise SettingsError(message)

    def choice(self, keep_flops: float) -> Choice:
        """Return how slots are chosen.

        Args:
            keep_flops: The share of FLOPs to keep.
        """
        settings = {name: getattr(self, name) for name in (*_OTHER_BUDGETS, *_CHOICE)}
        return Choice.of(keep_flops=keep_flops, latency=self.latency, **settings)

    @cached_property
    def latency(self) -> Latency | None:
        """How the time of a graph is found, if it matters."""
        if self.latency_ms is None and self.per != "latency":
            return None
        return Latency(on=self.latency_on, table=self.latency_table, batch=self.latency_batch)

    def _complete_budgets(self, keep_flops: float | None) -> None:
        """Let all FLOPs stay if there is another budget and none of FLOPs."""
        if keep_flops is None:
            self._require_other_budget()
            object.__setattr__(self, "keep_flops", 1.0)

    def _require_other_budget(self) -> None:
        if all(getattr(self, name) is None for name in _OTHER_BUDGETS):
            message = f"channel pruning needs a budget: give {' or '.join(('keep_flops', *_OTHER_BUDGETS))}"
            raise SettingsError(message)

    def _require_choice(self) -> None:
        try:
            self.choice(self.keep_flops)
        except (LatencyError, PlanError) as error:
            raise SettingsError(str(error)) from error


@dataclass(frozen=True, kw_only=True)
class ChannelReport(CompressionReport):
    """A report with one candidate per orbit.

    Attributes:
        text: The summary of the analysis: how much can be removed, and what locks the rest.
    """

    text: str

    def __str__(self) -> str:
        table = CompressionReport.__str__(dataclasses.replace(self, skipped=()))
        return f"{table}\n{self.text}"


class OneShotChannelPruning(CompressionAlgorithm):
    """Scores the channels of a graph once, and removes the least important ones.

    No training is needed: `finalize` may be called at once. With data (`calibrate`), the weights of the result are
    repaired (`recover`). The prepared graph, in which the dropped slots are masked, can be trained first; `finalize`
    then slices the trained weights, and leaves them as they are.

    Attributes:
        analysis: The analysis of a copy of the graph, which shares its weights with the prepared graph.
        proof: After `finalize`, the comparison of the masked with the removed graph; None before, or without
            ``verify``.
        recovery: After `finalize`, what was repaired; None before, and where nothing was.
    """

    name: ClassVar[str] = "channel-pruning"
    config_type = OneShotConfig
    config: OneShotConfig

    def __init__(
        self, model: DagModule, input_shape: Sequence[int] | None, keep_flops: float | None = None, **settings: Any
    ) -> None:
        """Analyse the graph and choose the slots to keep.

        Args:
            model: The graph to prune.
            input_shape: Shape of one sample, without the batch dimension; None uses the example inputs of the graph.
            keep_flops: Share of the FLOPs to keep; may be left out if another budget is given.
            **settings: The other fields of `OneShotConfig`, by name.

        Raises:
            SettingsError: a setting has a wrong value.
            PlanError: the FLOPs cannot be reached (the message says which share can), or the criterion is unknown.
        """
        super().__init__(model, input_shape, keep_flops=keep_flops, **settings)
        self.proof: Proof | None = None
        self.recovery: Recovery | None = None
        self._removed: DagModule | None = None
        self._batches: list[Any] = []
        self._statistics: Statistics | None = None
        self._criterion = criterion_named(self.config.criterion)
        if not looks_at_data(self._criterion):
            _ = self.plan  # refuses here what cannot be reached

    @property
    def looks_at_data(self) -> bool:
        """Whether `calibrate` makes a difference, with these settings."""
        return self.config.recover != "none" or looks_at_data(self._criterion)

    def calibrate(self, batches: Iterable[Any]) -> None:
        """Keep data for the choice of slots, where the criterion looks at it, and for the repair of the result.

        Args:
            batches: Tensors, tuples that start with the inputs, or mappings by name of the input; no labels are needed.

        Raises:
            CalibrationError: there is no batch, or one lacks an input.
            PlanError: the FLOPs cannot be reached (the message says how far down they go).
        """
        self._batches = list(batches)
        if looks_at_data(self._criterion):
            loss = "outputs" if needs_gradients(self._criterion) else None
            self._statistics = Statistics.collect(self.analysis, self._batches, loss=loss)  # type: ignore[arg-type]
        _ = self.plan

    @cached_property
    def plan(self) -> Plan:
        """Which slots stay.

        Raises:
            PlanError: the FLOPs cannot be reached, or the criterion looks at data and there is none yet.
        """
        if looks_at_data(self._criterion) and self._statistics is None:
            message = (
                f"the criterion {self._criterion.name!r} looks at data; call calibrate(batches) first, on the command "
                "line --calibrate"
            )
            raise PlanError(message)
        return Plan.chosen(self.analysis, self._criterion, self.config.choice(self._share), self._statistics)

    @cached_property
    def analysis(self) -> Analysis:
        """The analysis of a copy of the graph."""
        return analyze_freed(self.model.clone(), _example(self.model, self.input_shape), self.config.free)

    @cached_property
    def cut(self) -> Cut:
        """The plan for this copy."""
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
        """The share of the FLOPs of this graph to keep."""
        if self.config.reference_flops is None:
            return self.config.keep_flops
        return min(1.0, self.target_flops / self._report.flops)

    def require_reachable(self, report: CompressionReport) -> None:
        """Check nothing here: choosing the plan raises if the target is out of reach, rounded widths included."""

    def analyze(self) -> ChannelReport:
        """Return every orbit with the FLOPs that its removal saves, and what cannot be removed; changes nothing."""
        return self._report

    def prepare(self) -> DagModule:
        """Return a trainable copy in which the dropped slots contribute nothing."""
        masking = Masking(self.analysis)
        masking.update({key: self.plan.mask(key) for key in self.plan.kept})
        return masking.dag

    def losses(self, global_step: int) -> Losses:
        """Return the share of FLOPs that is kept; nothing is learned, so there are no loss terms."""
        del global_step
        left = float(self.analysis.cost(self.plan.atom_counts(self.analysis)))
        return Losses(torch.tensor(left / float(self.analysis.cost())))

    def finalize(self) -> DagModule:
        """Return a graph without the dropped slots, and save the plan to ``save_plan`` if that is set.

        With data, its weights are repaired, after the comparison with the masked graph; unless the prepared graph was
        trained, because then they are better than those of the graph that it came from.

        Raises:
            RemovalError: an op cannot be made smaller.
            RemovalMismatchError: the result differs from the masked graph; the message names the first vertex.
        """
        removed = self._removed = self.cut.removed()
        self.proof = self.cut.prove(removed) if self.config.verify else None
        if self.config.save_plan is not None:
            self.plan.save(self.config.save_plan)
        if not self._batches or self.config.recover == "none" or self._was_trained():
            return removed
        show = functools.partial(self.progress, "repairing")
        self.recovery = self.cut.recover(removed, self._batches, method=self.config.recover, progress=show)
        return self.recovery.dag

    def _was_trained(self) -> bool:
        before, now = self.model.state_dict(), self.analysis._original.state_dict()
        return any(not torch.equal(tensor, before[name]) for name, tensor in now.items())

    def conclusion(self) -> str:
        """Return how far the masked and the removed graph are apart, what repairing did, and which outputs are left."""
        found = [str(part) for part in (self.proof, self.recovery) if part is not None]
        if self.config.latency is not None and self._removed is not None:
            found.append(self._timed(self.config.latency, self._removed))
        for name, dims in kept_outputs(self.analysis, self.plan).items():
            found += [f"output {name!r} keeps {_listed(slots)} along dimension {dim}" for dim, slots in dims.items()]
        return "\n".join(found)

    def _timed(self, latency: Latency, removed: DagModule) -> str:
        predicted = latency.of(self.analysis)(self.plan.atom_counts(self.analysis))
        return f"{latency.measured(removed):.3g} ms on {latency.provider.name}, where {predicted:.3g} were predicted"


def _listed(slots: list[int]) -> str:
    shown = ", ".join(map(str, slots[:_SHOWN]))
    return f"{len(slots)} positions ({shown}{', ...' if len(slots) > _SHOWN else ''})"


def _example(model: DagModule, shape: tuple[int, ...]) -> Tensor | None:
    """Return two random samples of a shape; None if the graph remembers example inputs of this shape.

    Raises:
        InputError: the graph has several inputs, which one shape does not describe.
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
