"""What is learned about the slots of one graph: masks for the next call, and the plan that they amount to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from torch_dag_core.errors import SettingsError
from torch_dag_core.graph.dag import DagModule
from torch_dag_pruning.analysis.analysis import Analysis, Orbit
from torch_dag_pruning.learning.config import LearnedChannelConfig
from torch_dag_pruning.learning.gates import Gates
from torch_dag_pruning.learning.penalties import NoHook
from torch_dag_pruning.learning.widths import RankedWidths
from torch_dag_pruning.masking.masking import Masking
from torch_dag_pruning.plan.flops_budget import FlopsBudget
from torch_dag_pruning.plan.known_criteria import criterion_named, with_statistics
from torch_dag_pruning.plan.plan import Plan
from torch_dag_pruning.plan.selectors import Parts
from torch_dag_pruning.plan.slots import Slots
from torch_dag_pruning.processes import averaged, of_first
from torch_dag_pruning.statistics.statistics import Statistics


def _block(config: LearnedChannelConfig) -> int | None:
    """Return the block size that `Gates` takes."""
    return {"default": None, "block_snpe": config.block_size, "whole_block": 0}[config.mode]


def free_orbits(analysis: Analysis, config: LearnedChannelConfig) -> list[Orbit]:
    """Return the orbits that may be pruned: those in no ignored layer, and in no layer of the stem unless allowed.

    Raises:
        PlanError: the graph has no layer of an ignored class.
    """
    parts = Parts(analysis)
    held = set[str]() if config.prune_stem else parts.touched("prune_stem", "@stem")
    for ignored in config.ignore_classes:
        held |= parts.touched("ignore_classes", ignored)
    return [orbit for orbit in analysis.orbits if orbit.key not in held]


def prior(analysis: Analysis, slots: Slots, name: str, statistics: Statistics | None) -> Tensor:
    """Return the score of each slot by a criterion, relative to the mean of its orbit."""
    scores = with_statistics(criterion_named(name), statistics).score(analysis)
    each = slots.joined(scores).to(torch.float64)
    return each / slots.means(each).clamp_min(1e-300)[slots.owner]


@dataclass(frozen=True)
class _Laid:
    """The masks of one call of the graph, and the scale of its loss."""

    masks: Tensor
    loss_scale: float

    def gradient(self) -> Tensor | None:
        """Return the derivative of the loss without its scale; None before the backward pass."""
        return None if self.masks.grad is None else self.masks.grad / self.loss_scale


@dataclass
class Choosing:
    """The learned masks of one graph.

    Attributes:
        config: How they are learned.
        analysis: Of the graph.
        target_flops: The FLOPs that may stay.
        statistics: For the criterion, if it looks at data.
        plan: The choice that stands; None while it is learned.
        loss_scale: Returns what the loss of the next backward pass is multiplied by, such as the scale of a GradScaler.
    """

    config: LearnedChannelConfig
    analysis: Analysis
    target_flops: float
    statistics: Statistics | None = None
    plan: Plan | None = None
    loss_scale: Callable[[], float] = field(default=lambda: 1.0, repr=False)
    _latest: list[_Laid] = field(default_factory=list, repr=False)
    _laid: Plan | None = field(default=None, repr=False)
    _shown: tuple[Any, Plan] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.slots = Slots(free_orbits(self.analysis, self.config))
        self.ties = prior(self.analysis, self.slots, self.config.criterion, self.statistics)
        self.masking = Masking(self.analysis)
        self.module = self._module()
        self.generator = torch.Generator().manual_seed(self.config.seed)
        self.budget = FlopsBudget(self.analysis, self.slots, self.target_flops)
        device = next((tensor.device for tensor in self.masking.dag.parameters()), torch.device("cpu"))
        self.module.to(device)
        self.slots.to(device)

    def _module(self) -> Gates | RankedWidths:
        if self.config.mode == "ranked":
            return RankedWidths(self.slots, self.ties)
        return Gates(self.slots, block=_block(self.config))

    # Masks -----------------------------------------------------------------------------------------------------

    def require_device(self, dag: DagModule) -> None:
        """Refuse a graph that was moved after it was analysed: its masks, and what will be cut, stayed behind.

        Raises:
            SettingsError: says which devices these are.
        """
        tensor = next(dag.parameters(), None)
        own = next(self.module.parameters())
        if tensor is not None and tensor.device != own.device:
            message = (
                f"the network was moved from {own.device} to {tensor.device} after it was analysed; move the graph "
                "first, and make the pruning of that"
            )
            raise SettingsError(message)

    def refresh(self, *, training: bool) -> None:
        """Update the masks for a call of the graph: learned ones in training, those of the plan otherwise.

        Once the choice stands, it holds in both modes.
        """
        if self.plan is None and training:
            self._lay(self.module.masks(self.generator))
            return
        plan = self.current_plan()
        if plan is not self._laid:
            self.masking.update({key: plan.mask(key) for key in plan.kept})
            self._laid = plan

    def _lay(self, masks: Tensor) -> None:
        if torch.is_grad_enabled():
            masks.retain_grad()
            self._latest.append(_Laid(masks, self.loss_scale()))
        self.masking.update(self.slots.split(masks))
        self._laid = None

    def current_plan(self) -> Plan:
        """Return the plan that is within the budget now; cached while nothing is learned."""
        if self.plan is not None:
            return self.plan
        key = tuple(tensor._version for tensor in self.module.state_dict(keep_vars=True).values())
        if self._shown is None or self._shown[0] != key:
            self._shown = (key, self.budget.plan(self.module.worth(), self.module.units(), self.ties))
        return self._shown[1]

    def freeze(self) -> None:
        """Let the present choice of rank 0 stand in all processes."""
        kept = of_first({key: list(slots) for key, slots in self.current_plan().kept.items()})
        self.plan = Plan.keeping(self.analysis, kept)
        self.refresh(training=False)
        self._latest.clear()

    def share(self) -> Tensor:
        """Return the share of the FLOPs, a scalar that is differentiable until the choice stands."""
        if self.plan is not None:
            cost = float(self.analysis.cost(self.plan.atom_counts(self.analysis)))
            return next(self.module.parameters()).new_tensor(cost / float(self.analysis.cost()))
        left: Tensor = self.analysis.cost(self.slots.counts(self.module.counts()))
        return left / float(self.analysis.cost())

    # Learning --------------------------------------------------------------------------------------------------

    def observe(self) -> None:
        """Let the ranking see the derivatives of all backward passes since the last step, averaged over processes.

        The derivatives of several passes (gradient accumulation) are added. A step with infinite ones is left out.
        """
        laid, self._latest = self._latest, []
        found = [gradient for each in laid if (gradient := each.gradient()) is not None]
        if not found or not isinstance(self.module, RankedWidths):
            return
        gradient = averaged(torch.stack(found).sum(0))
        if bool(gradient.isfinite().all()):
            self.module.observe(laid[-1].masks.detach(), gradient)

    @property
    def latest_scale(self) -> float:
        """The scale of the loss of the latest call in training."""
        return self._latest[-1].loss_scale if self._latest else 1.0

    @torch.no_grad()
    def project(self, target: float) -> None:
        """Move all widths by the same share of their orbits until the share of FLOPs is a target.

        Of the two ends of the last interval of the bisection, the one within the target is taken.
        """
        if not isinstance(self.module, RankedWidths):
            return
        start = self.module.widths.detach().clone()
        low, high, step = 0.0, 0.0, 0.01
        while not self._is_within(start, high, target) and high < 1.0:
            low, high, step = high, high + step, 4 * step
        while low <= 0.0 and self._is_within(start, low, target) and low > -1.0:
            low, high, step = low - step, low, 4 * step
        while high - low > 1e-4:
            middle = (low + high) / 2
            low, high = (low, middle) if self._is_within(start, middle, target) else (middle, high)
        self._is_within(start, high, target)

    def _is_within(self, widths: Tensor, by: float, target: float) -> bool:
        """Set the widths to given ones, narrowed by a share, and return whether the FLOPs are within a target then."""
        assert isinstance(self.module, RankedWidths)
        self.module.widths.copy_(widths)
        self.module.narrow(by)
        return float(self.share()) <= target


@dataclass(frozen=True)
class Refresh:
    """Hook that updates the masks before each call of a graph. Copies of the graph have none: their masks stay.

    `torch.compile` leaves it alone and compiles the graph, which reads the masks as inputs. `torch.compiler.disable`
    would do the same, but it imports the compiler, which takes a second.
    """

    choosing: Choosing
    before: Any

    @_disable_dynamo
    def __call__(self, module: DagModule, operands: Any) -> None:
        """Update the masks; in training, forget what was measured in the previous call first.

        Raises:
            SettingsError: the graph was moved to another device than the one that it was analysed on.
        """
        del operands
        self.choosing.require_device(module)
        if module.training:
            self.before()
        self.choosing.refresh(training=module.training)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return NoHook, ()
