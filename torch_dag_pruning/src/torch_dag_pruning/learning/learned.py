"""Learned channel pruning: which channels go is decided while the network is trained."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from torch_dag_core.algorithms.algorithm import Losses
from torch_dag_core.algorithms.compression import CompressionAlgorithm
from torch_dag_core.errors import SettingsError
from torch_dag_core.graph.dag import DagModule
from torch_dag_pruning.analysis.analysis import Analysis
from torch_dag_pruning.cut import Cut
from torch_dag_pruning.learning.checkpoints import choice_state, load_choice
from torch_dag_pruning.learning.choosing import Choosing, Refresh, free_orbits
from torch_dag_pruning.learning.config import LearnedChannelConfig
from torch_dag_pruning.learning.descent import Descent
from torch_dag_pruning.learning.gates import Gates
from torch_dag_pruning.learning.penalties import BlockDistillation, annealed, excess
from torch_dag_pruning.learning.resuming import add_biases, of_first_process
from torch_dag_pruning.learning.sharding import fill_, is_sharded, replicated, unshard_
from torch_dag_pruning.learning.widths import WINDOW, RankedWidths
from torch_dag_pruning.one_shot import ChannelReport, OneShotChannelPruning
from torch_dag_pruning.plan.known_criteria import criterion_named, looks_at_data, needs_gradients
from torch_dag_pruning.plan.plan import Plan
from torch_dag_pruning.processes import copy_first_
from torch_dag_pruning.recovery.recovery import Recovery
from torch_dag_pruning.removal.proof import Proof
from torch_dag_pruning.statistics.statistics import Statistics


class LearnedChannelPruning(CompressionAlgorithm):
    """Learns during training which channels go, and hits its target of FLOPs after any number of steps.

        pruning = tdp.LearnedChannelPruning(dag, (3, 224, 224), keep_flops=0.5, training_steps=10_000)
        pruning.calibrate(batches)              # optional: weights are repaired with this data after the cut
        pruning.prepare()
        optimizer = torch.optim.AdamW(pruning.network.parameters(), 1e-4)
        pruning.attach(optimizer)
        for images, labels in loader:
            loss = cross_entropy(pruning.network(images), labels) + pruning.loss()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            pruning.step()
        pruned = pruning.finalize()

    At ``freeze_at`` of the steps, `step` replaces ``network`` by the cut graph, and the attached optimizers go on with
    it: the same objects, so schedules of learning rates and gradient scalers keep working.

    In evaluation mode the network computes what `finalize` would cut out at that moment. A copy of the network keeps
    the masks that it was copied with.

    Attributes:
        analysis: The analysis of a copy of the graph, which shares its weights with the masked network.
        network: The graph to train: the masked one, after the cut the cut one.
        proof: After the cut, the comparison of the masked with the removed graph; None without ``verify``.
        recovery: After the cut, what was repaired; None without data.
        steps_done: How many times `step` was called.
    """

    name: ClassVar[str] = "learned-channel-pruning"
    config_type = LearnedChannelConfig
    config: LearnedChannelConfig

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        """Analyse the graph, and check that the target can be reached.

        Args:
            *arguments: The graph, the shape of one sample, the share of FLOPs to keep, and the number of training
                steps: see `CompressionAlgorithm`.
            **settings: The fields of `LearnedChannelConfig`, by name.

        Raises:
            SettingsError: a setting is wrong, or the target cannot be reached (the message says which can).
            PlanError: the criterion is unknown.
        """
        super().__init__(*arguments, **settings)
        self._criterion = criterion_named(self.config.criterion)
        self.proof: Proof | None = None
        self.recovery: Recovery | None = None
        self.steps_done = 0
        self._batches: list[Any] = []
        self._statistics: Statistics | None = None
        self._optimizers: list[Optimizer] = []
        self._network: DagModule | None = None
        self._cut: Cut | None = None
        self._added: dict[str, int] = {}

    # Before training -------------------------------------------------------------------------------------------

    @cached_property
    def _untrained(self) -> OneShotChannelPruning:
        return OneShotChannelPruning(self.model, self.input_shape, keep_flops=1.0)

    @cached_property
    def _trained(self) -> OneShotChannelPruning:
        return OneShotChannelPruning(self.model, self.input_shape, keep_flops=1.0)

    @property
    def analysis(self) -> Analysis:
        """The analysis of the copy that is trained."""
        return self._trained.analysis

    @cached_property
    def _report(self) -> ChannelReport:
        report = self._trained.analyze()
        orbits = free_orbits(self.analysis, self.config)
        least = self.analysis.cost({orbit.atom.id: max(1, orbit.minimum) for orbit in orbits})
        keys = {orbit.key for orbit in orbits}
        return dataclasses.replace(
            report, algorithm=self.name, reachable_flops=round(float(least)),
            candidates=tuple(each for each in report.candidates if each.name in keys),
        )  # fmt: skip

    def analyze(self) -> ChannelReport:
        """Return every orbit that may be pruned with the FLOPs that its removal saves; changes nothing."""
        return self._report

    @property
    def looks_at_data(self) -> bool:
        """Whether `calibrate` makes a difference, with these settings."""
        return self.config.recover != "none" or looks_at_data(self._criterion)

    def calibrate(self, batches: Iterable[Any]) -> None:
        """Keep data for the repair of weights after the cut, and for the criterion where it looks at data.

        With ``torch.distributed``, all processes must call it. The criterion sees the data of all of them, the repair
        that of rank 0.

        Args:
            batches: Tensors, tuples that start with the inputs, or mappings by name of the input; no labels are needed.

        Raises:
            CalibrationError: there is no batch, or one lacks an input.
            SettingsError: the network was prepared already.
        """
        if self._network is not None:
            message = "calibrate(batches) must come before prepare()"
            raise SettingsError(message)
        self._batches = list(batches)
        if looks_at_data(self._criterion):
            loss = "outputs" if needs_gradients(self._criterion) else None
            own = Statistics.collect(self.analysis, self._batches, loss=loss)  # type: ignore[arg-type]
            self._statistics = own.over_processes()

    @cached_property
    def _choosing(self) -> Choosing:
        return Choosing(self.config, self.analysis, self.target_flops, self._statistics)

    @cached_property
    def _blocks(self) -> BlockDistillation | None:
        return None if self.config.mode == "ranked" else BlockDistillation(self._choosing.masking)

    @cached_property
    def _descent(self) -> Descent:
        return Descent(self._choosing, self.config)

    def prepare(self) -> DagModule:
        """Return the network to train, whose masks are updated before each of its calls; also called ``network``."""
        if self._network is None:
            dag = self._choosing.masking.dag
            before = (lambda: None) if self._blocks is None else self._blocks.reset
            dag.register_forward_pre_hook(Refresh(self._choosing, before))
            if not self.config.own_optimizer:
                dag.register_module("channel_gates", self._choosing.module)
            self._network = dag
        return self._network

    @property
    def network(self) -> DagModule:
        """The graph to train: the masked one, after the cut the cut one."""
        return self.prepare()

    def attach(self, *optimizers: Optimizer, scaler: torch.amp.GradScaler | None = None) -> None:
        """Let optimizers over parameters of ``network`` go on with those of the cut graph when it is cut.

        The optimizers stay the same objects; their parameter groups and states are replaced (`carry_optimizer_`). One
        that is attached already is not attached again.

        Args:
            *optimizers: Optimizers of the weights.
            scaler: What scales the loss, if anything does; derivatives by masks are divided by its scale.
        """
        self._optimizers.extend(each for each in optimizers if each not in self._optimizers)
        if scaler is not None:
            self._choosing.loss_scale = scaler.get_scale

    # Training --------------------------------------------------------------------------------------------------

    def losses(self, global_step: int) -> Losses:
        """Return the current share of FLOPs and the losses to add, for the latest call of the network in training.

        The terms are ``flops``, ``entropy`` and ``blocks``. There are none in the ranked mode, whose widths `step`
        moves to the target, and none once the choice stands, at the step ``freeze_at * training_steps``.
        """
        if self._choosing.plan is None and global_step >= self.config.freeze_step:
            self._choosing.freeze()
        share = self._choosing.share()
        if self._choosing.plan is not None or not len(self._choosing.slots):
            return Losses(share.detach())
        return Losses(share, self._terms(share, global_step))

    def _terms(self, share: Tensor, step: int) -> dict[str, Tensor]:
        module, config, target = self._choosing.module, self.config, self._target_share
        if self._blocks is None or not isinstance(module, Gates):
            return {}
        weight = annealed(step, config.training_steps) if config.anneal_losses else 1.0
        return {
            "flops": config.flops_loss_weight * weight * excess(share, target),
            "entropy": config.entropy_loss_weight * weight * module.entropy(),
            "blocks": self._blocks.value(share),
        }

    @property
    def _target_share(self) -> float:
        return min(1.0, self.target_flops / self._report.flops)

    def _target_at(self, step: int) -> float:
        """Return the target of this step: it falls geometrically from 1 during the warm share of the steps."""
        warm = self.config.warm_share * self.config.training_steps
        return float(self._target_share ** min(1.0, (step + 1) / max(warm, 1.0)))

    def loss(self) -> Tensor:
        """Return what to add to the loss of the task at the present step."""
        return self.losses(self.steps_done).total()

    def step(self) -> bool:
        """Learn from all backward passes since the last step, after the step of the optimizer of the weights.

        With ``torch.distributed``, all processes must call it.

        Returns:
            Whether ``network`` is another one now, because it was cut.
        """
        self.steps_done += 1
        if self._cut is not None:
            return False
        if self._choosing.plan is None:
            self._learn()
        if self.steps_done < self.config.freeze_step:
            return False
        self._carry_out()
        return True

    def _learn(self) -> None:
        choosing, config = self._choosing, self.config
        scale = choosing.latest_scale
        choosing.observe()
        self._descent.step(scale)
        if isinstance(choosing.module, RankedWidths):
            choosing.module.window = WINDOW * max(0.0, 1.0 - self.steps_done / max(config.freeze_step, 1))
            choosing.project(self._target_at(self.steps_done))

    # The cut ---------------------------------------------------------------------------------------------------

    @property
    def cut(self) -> Cut | None:
        """The cut that was made; None before."""
        return self._cut

    @property
    def plan(self) -> Plan:
        """Which slots stay: the choice that stands, or the one that is within the target now."""
        return self._choosing.current_plan()

    def finalize(self) -> DagModule:
        """Return a plain graph within the target, with the weights that the network has now.

        With ``torch.distributed``, all processes must call it; they get equal graphs.

        Raises:
            RemovalError: an op cannot be made smaller.
            RemovalMismatchError: the result differs from the masked graph; the message names the first vertex.
        """
        if self._cut is None:
            self._carry_out()
        assert self._cut is not None
        copy_first_(replicated(self.network))
        if not any(map(is_sharded, self.network.parameters())):
            return self.network
        plain = add_biases(self._cut.removed(), self._added)
        fill_(plain, self.network)
        plain.provenance = copy.deepcopy(self.network.provenance)
        return plain.train(self.network.training)

    def _carry_out(self) -> None:
        """Cut the network, compare, repair, and let the optimizers go on with what is left."""
        masked, choosing = self.network, self._choosing
        if unshard_(masked, self.analysis.dag, self._optimizers):
            masked = self.analysis.dag.train(masked.training)
        copy_first_(replicated(masked))  # each process has batch-norm statistics of its own
        choosing.freeze()
        cut = Cut(self.analysis, choosing.current_plan())
        removed = cut.removed()
        self.proof = cut.prove(removed) if self.config.verify else None
        network, self._added = of_first_process(removed, self._solved)
        for optimizer in self._optimizers:
            cut.carry_optimizer_(optimizer, masked, network)
        self._cut, self._network = cut, network.train(masked.training)

    def _solved(self, removed: DagModule) -> DagModule:
        if not self._batches or self.config.recover == "none":
            return removed
        show = functools.partial(self.progress, "repairing")
        reference = Cut(self._untrained.analysis, self._choosing.current_plan())
        self.recovery = reference.recover(removed, self._batches, method=self.config.recover, progress=show)
        return self.recovery.dag

    def conclusion(self) -> str:
        """Return how far the masked and the removed graph are apart, and what repairing the weights did."""
        return "\n".join(str(part) for part in (self.proof, self.recovery) if part is not None)

    # Checkpoints -----------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return everything but the weights of the network and the state of the attached optimizers.

        Save ``network.state_dict()`` and the optimizers' beside it.
        """
        return {
            "steps_done": self.steps_done,
            **choice_state(self._choosing, self._descent),
            "is_cut": self._cut is not None,
            "added_biases": dict(self._added),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another run was when it called `state_dict`; the network is cut if that of the other was.

        Call it on a fresh object of the same settings, after `prepare` and `attach`, and load the states of ``network``
        and of the optimizers afterwards: their parameters may be others than before.
        """
        self.steps_done = state["steps_done"]
        load_choice(self._choosing, self._descent, state)
        if state["is_cut"]:
            self._cut_again(state["added_biases"])

    def _cut_again(self, added: Mapping[str, int]) -> None:
        masked, cut = self.network, Cut(self.analysis, self.plan)
        removed = add_biases(cut.removed(), added)
        for optimizer in self._optimizers:
            cut.carry_optimizer_(optimizer, masked, removed)
        self._cut, self._network, self._added = cut, removed.train(masked.training), dict(added)
