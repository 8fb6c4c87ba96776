"""The settings of one-shot channel pruning, which `torch-dag prune --help` shows without importing torch."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch_dag_core.algorithms.settings import CompressionConfig, choose, require_count, require_flag
from torch_dag_core.errors import SettingsError
from torch_dag_pruning.errors import LatencyError, PlanError
from torch_dag_pruning.recovery.settings import METHODS

if TYPE_CHECKING:
    from torch_dag_pruning.latency.latency import Latency
    from torch_dag_pruning.plan.selection import Choice
    from torch_dag_pruning.schedule import Schedule

AUTO = "auto"
"""The criterion that is `AUTO_WITH_DATA` if there is data for least squares, otherwise `AUTO_WITHOUT`."""
AUTO_WITH_DATA, AUTO_WITHOUT = "obs", "l2"
_RECOVERIES = (*METHODS, "none")
_OTHER_BUDGETS = ("keep_parameters", "keep_memory", "latency_ms")
_CHOICE = ("scope", "per", "multiple_of", "ignore", "only", "kinds", "bounds")
_CHOOSING = ("keep_flops", *_OTHER_BUDGETS, "criterion", *_CHOICE, "steps")


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
        default=AUTO,
        metadata={
            "help": "how slots are scored: l1, l2, bn_scale, fpgm, random; with data taylor, fisher, l2_fisher, "
            "variance, wanda, obs; or what a plugin offers; auto is obs with data for least_squares, otherwise l2"
        },
    )
    scope: str = field(
        default="global",
        metadata={"help": "global compares all orbits, isomorphic those of one kind, local takes the same share"},
    )
    per: str | None = field(
        default=None,
        metadata={
            "help": "what scores are divided by: flops, parameters, memory or latency; by default nothing, but for "
            "criterion auto with data what the budget counts"
        },
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
    steps: int = field(
        default=1, metadata={"help": "in how many steps slots go; after each, weights are repaired and scored anew"}
    )
    schedule: str = field(
        default="geometric",
        metadata={"help": "geometric keeps the same share in each step, linear removes equal parts"},
    )
    plan: Path | None = field(
        default=None, metadata={"help": "file of a plan that is carried out as it is, instead of choosing slots"}
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
        from torch_dag_pruning.plan.ordering import SCOPES
        from torch_dag_pruning.plan.selection import PRICES
        from torch_dag_pruning.schedule import SHAPES

        self._complete_budgets(self.keep_flops)
        super().__post_init__()
        choose("scope", self.scope, tuple(SCOPES))
        choose("recover", self.recover, _RECOVERIES)
        if self.per is not None:
            choose("per", self.per, tuple(price for price in PRICES if price is not None))
        if isinstance(self.multiple_of, int):
            require_count("multiple_of", self.multiple_of)
        self._refuse_choices_beside_a_plan()
        self._require_choice()
        require_count("steps", self.steps)
        choose("schedule", self.schedule, tuple(SHAPES))
        require_flag("verify", self.verify)
        if self.save_plan is not None and not Path(self.save_plan).parent.is_dir():
            message = f"save_plan: there is no folder {str(Path(self.save_plan).parent)!r}"
            raise SettingsError(message)

    def criterion_for(self, *, has_data: bool) -> str:
        """Return the name of the criterion that scores slots."""
        if self.criterion != AUTO:
            return self.criterion
        return AUTO_WITH_DATA if has_data and self.is_auto_with_data else AUTO_WITHOUT

    @property
    def is_auto_with_data(self) -> bool:
        """Whether data changes the criterion: that criterion measures the error that least squares leave."""
        return self.criterion == AUTO and self.recover == "least_squares"

    def choice(self, keep_flops: float, *, has_data: bool = False) -> Choice:
        """Return how slots are chosen.

        Args:
            keep_flops: The share of FLOPs to keep.
            has_data: Whether there is data that scores come from.
        """
        from torch_dag_pruning.plan.selection import Choice

        settings = {name: getattr(self, name) for name in (*_OTHER_BUDGETS, *_CHOICE)}
        if self.is_auto_with_data and has_data and self.per is None:
            settings["per"] = self._what_the_budget_counts
        return Choice.of(keep_flops=keep_flops, latency=self.latency, **settings)

    @property
    def _what_the_budget_counts(self) -> str:
        """The cost that the first budget bounds, by its name as a price of slots."""
        prices = {"keep_parameters": "parameters", "keep_memory": "memory", "latency_ms": "latency"}
        given = [price for name, price in prices.items() if getattr(self, name) is not None]
        return given[0] if given and self.keep_flops == 1.0 else "flops"

    @cached_property
    def latency(self) -> Latency | None:
        """How the time of a graph is found, if it matters."""
        if self.latency_ms is None and self.per != "latency":
            return None
        from torch_dag_pruning.latency.latency import Latency

        return Latency(on=self.latency_on, table=self.latency_table, batch=self.latency_batch)

    def _complete_budgets(self, keep_flops: float | None) -> None:
        """Let all FLOPs stay if there is a plan, or another budget and none of FLOPs."""
        if keep_flops is None:
            self._require_other_budget()
            object.__setattr__(self, "keep_flops", 1.0)

    def _require_other_budget(self) -> None:
        if all(getattr(self, name) is None for name in (*_OTHER_BUDGETS, "plan")):
            message = f"channel pruning needs a budget: give {' or '.join(('keep_flops', *_OTHER_BUDGETS))}, or a plan"
            raise SettingsError(message)

    def _refuse_choices_beside_a_plan(self) -> None:
        if self.plan is None:
            return
        usual = {each.name: each.default for each in fields(self)} | {"keep_flops": 1.0}
        given = [name for name in _CHOOSING if getattr(self, name) != usual[name]]
        if given:
            message = f"plan is carried out as it is, so {given[0]} has no effect; leave out {' and '.join(given)}"
            raise SettingsError(message)

    @property
    def in_steps(self) -> Schedule:
        """In which steps the budgets are reached."""
        from torch_dag_pruning.schedule import Schedule

        return Schedule(steps=self.steps, shape=self.schedule)

    def _require_choice(self) -> None:
        try:
            self.choice(self.keep_flops)
        except (LatencyError, PlanError) as error:
            raise SettingsError(str(error)) from error
