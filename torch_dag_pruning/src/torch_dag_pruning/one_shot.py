"""One-shot channel pruning: the least important channels are removed at once, or in steps, without training."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from torch_dag_core.algorithms.algorithm import Losses
from torch_dag_core.algorithms.compression import CompressionAlgorithm
from torch_dag_core.algorithms.reports import Candidate, CompressionReport, Skipped
from torch_dag_core.analysis.random_inputs import random_input
from torch_dag_core.errors import InputError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.entry_checks import require_graphs
from torch_dag_pruning.analysis.analysis import Analysis, Orbit
from torch_dag_pruning.cut import Cut
from torch_dag_pruning.errors import PlanError
from torch_dag_pruning.latency.latency import Latency
from torch_dag_pruning.masking.masking import Masking
from torch_dag_pruning.one_shot_config import OneShotConfig
from torch_dag_pruning.plan.criteria import ImportanceCriterion
from torch_dag_pruning.plan.known_criteria import criterion_named, looks_at_data
from torch_dag_pruning.plan.outputs import analyze_freed, kept_outputs
from torch_dag_pruning.plan.plan import Plan
from torch_dag_pruning.recovery.recovery import Recovery
from torch_dag_pruning.removal.proof import Proof
from torch_dag_pruning.schedule import LastStep, Rounds

_SHOWN = 20


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
    """Scores the channels of a graph, and removes the least important ones: at once, or in ``steps``.

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
        require_graphs(type(self).__name__, model)
        super().__init__(model, input_shape, keep_flops=keep_flops, **settings)
        self.proof: Proof | None = None
        self.recovery: Recovery | None = None
        self._removed: DagModule | None = None
        self._batches: list[Any] = []
        self._is_prepared = False
        self._require_reachable()

    def _require_reachable(self) -> None:
        """Refuse a plan that does not fit, and budgets that cannot be reached, unless only data can tell."""
        if self.config.plan is None and looks_at_data(self._criterion):
            return
        if self.config.plan is None and self.config.steps > 1:
            Plan.chosen(self.analysis, self._criterion, self.config.choice(self._share))
        else:
            _ = self.plan

    @property
    def _criterion(self) -> ImportanceCriterion:
        return criterion_named(self.config.criterion_for(has_data=bool(self._batches)))

    @property
    def _chooses_by_data(self) -> bool:
        """Whether other slots may be chosen with data."""
        by_data = self.config.is_auto_with_data or looks_at_data(self._criterion)
        return self.config.plan is None and by_data

    @property
    def looks_at_data(self) -> bool:
        """Whether `calibrate` makes a difference, with these settings."""
        return self.config.recover != "none" or self._chooses_by_data

    def calibrate(self, batches: Iterable[Any]) -> None:
        """Keep data for the choice of slots, where the criterion looks at it, and for the repair of the result.

        Slots are chosen anew, unless the graph is prepared already.

        Args:
            batches: Tensors, tuples that start with the inputs, or mappings by name of the input; no labels are needed.

        Raises:
            CalibrationError: there is no batch, or one lacks an input.
            PlanError: the FLOPs cannot be reached (the message says how far down they go).
        """
        self._batches = list(batches)
        in_steps = self.config.plan is None and self.config.steps > 1
        if (self._chooses_by_data or in_steps) and not self._is_prepared:
            for name in ("_last", "plan", "cut"):
                self.__dict__.pop(name, None)
        _ = self.plan

    @cached_property
    def plan(self) -> Plan:
        """Which slots stay.

        Raises:
            PlanError: the FLOPs cannot be reached, or the criterion looks at data and there is none yet.
        """
        if self.config.plan is not None:
            plan = Plan.load(self.config.plan)
            plan.validate(self.analysis)
            return plan
        if looks_at_data(self._criterion) and not self._batches:
            message = (
                f"the criterion {self._criterion.name!r} looks at data; call calibrate(batches) first, on the command "
                "line --calibrate"
            )
            raise PlanError(message)
        return self._last.plan

    @cached_property
    def _last(self) -> LastStep:
        """The slots that stay after all steps, and the last step."""
        config = self.config
        rounds = Rounds(
            criterion=self._criterion,
            choice=config.choice(self._share, has_data=bool(self._batches)),
            schedule=config.in_steps,
            again=self._analysis_of,
            batches=self._batches,
            recover=None if config.recover == "none" else config.recover,
            verify=config.verify,
            progress=functools.partial(self.progress, "pruning in steps"),
        )
        return rounds.run(self.analysis)

    @cached_property
    def analysis(self) -> Analysis:
        """The analysis of a copy of the graph."""
        return self._analysis_of(self.model.clone())

    def _analysis_of(self, dag: DagModule) -> Analysis:
        return analyze_freed(dag, _example(self.model, self.input_shape), self.config.free)

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
        self._is_prepared = True
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
        was_trained = self._was_trained()
        # Trained weights are cut at once; otherwise the last step goes on with the weights that the others left.
        cut = self.cut if was_trained or self.config.plan is not None else self._last.cut
        removed = self._removed = cut.removed()
        self.proof = cut.prove(removed) if self.config.verify else None
        if self.config.save_plan is not None:
            self.plan.save(self.config.save_plan)
        if not self._batches or self.config.recover == "none" or was_trained:
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
