"""The base of algorithms that make a graph cheaper: one constructor, one target, one set of losses.

The names are those of channel pruning, so that one training loop drives channel pruning, block pruning and low-rank
compression, one after the other or any of them alone.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch_dag_core.algorithms.algorithm import Losses
from torch_dag_core.algorithms.reports import CompressionReport
from torch_dag_core.algorithms.settings import CompressionConfig
from torch_dag_core.analysis.vertex_facts import sample_shape
from torch_dag_core.errors import SettingsError

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule


class CompressionPlugin(ABC):
    """A compression algorithm bound to one flat graph, which it never changes: it works on copies.

    Attributes:
        model: The graph.
        config: The settings.
        initial_normalized_flops: Cost of the graph: FLOPs of one sample by input pixel, in thousands.
        target_normalized_flops: What is asked for, in the same unit.
        prunable_proportion: The share of FLOPs that can go at most.
        prepared_model: What `prepare_for_pruning` returned, or None before.
    """

    __signature__: ClassVar[inspect.Signature]
    name: ClassVar[str]
    config_type: ClassVar[type[CompressionConfig]] = CompressionConfig

    def __init_subclass__(cls, **options: Any) -> None:
        """Spell out in the constructor's signature the settings that ``config_type`` has."""
        super().__init_subclass__(**options)
        cls.__signature__ = _signature(cls.config_type)

    def __init__(
        self,
        model: DagModule,
        input_shape_without_batch: Sequence[int] | None,
        pruning_proportion: float,
        num_training_steps: int,
        **settings: Any,
    ) -> None:
        """Check the settings and whether the graph can give what they ask for.

        Args:
            model: The graph to compress.
            input_shape_without_batch: Shape of one sample; None takes the example that the graph remembers.
            pruning_proportion: Share of the cost that stays.
            num_training_steps: Steps over which the losses reach their full weight.
            **settings: The other fields of ``config_type``, by name: those of `CompressionConfig` and the algorithm's
                own.

        Raises:
            SettingsError: a setting is wrong, or the target is below what can be reached (the message says what is).
            TypeError: there is no setting of that name.
        """
        self.config = self.config_type(
            pruning_proportion=pruning_proportion, num_training_steps=num_training_steps, **settings
        )
        self.model = model
        self.input_shape_without_batch = sample_shape(model, input_shape_without_batch)
        self.prepared_model: DagModule | None = None
        report = self.analyze()
        target = self.config.pruning_proportion * (self.config.reference_flops or report.flops)
        self._refuse_unreachable(report, target)
        self.prunable_proportion = report.prunable_proportion
        self.initial_normalized_flops = self._normalize(report.flops)
        self.target_normalized_flops = self._normalize(target)

    @classmethod
    def from_config(
        cls, model: DagModule, config: CompressionConfig, input_shape_without_batch: Sequence[int] | None = None
    ) -> Self:
        """Return the algorithm with the settings of a config."""
        settings = {each.name: getattr(config, each.name) for each in dataclasses.fields(config)}
        return cls(model, input_shape_without_batch, **settings)

    @abstractmethod
    def analyze(self) -> CompressionReport:
        """Return the candidates, what each costs, and how much can go. Mutates nothing."""

    def calibrate(self, batches: Iterable[Any]) -> None:
        """Look at data before training; an algorithm that needs none ignores it."""
        del batches

    @abstractmethod
    def prepare_for_pruning(self) -> DagModule:
        """Return a trainable graph on the same device that holds the algorithm's own parameters."""

    @abstractmethod
    def compute_current_proportion_and_pruning_losses(self, global_step: int) -> Losses:
        """Return (proportion, flops_loss, entropy_loss, bkd_loss) for the prepared graph's last call."""

    @abstractmethod
    def finalize(self) -> DagModule:
        """Return a plain graph that costs at most the target."""

    def prepare(self) -> DagModule:
        """Do `prepare_for_pruning`."""
        return self.prepare_for_pruning()

    def losses(self, global_step: int) -> Losses:
        """Do `compute_current_proportion_and_pruning_losses`."""
        return self.compute_current_proportion_and_pruning_losses(global_step)

    def _normalize(self, flops: float) -> float:
        return flops / (1000 * math.prod(self.input_shape_without_batch[1:]))

    def _refuse_unreachable(self, report: CompressionReport, target: float) -> None:
        if target >= report.reachable_flops:
            return
        least = math.ceil(report.reachable_flops / target * self.config.pruning_proportion * 1e4) / 1e4
        message = (
            f"pruning_proportion={self.config.pruning_proportion} asks for {target:,.0f} FLOPs, but {self.name} cannot "
            f"get this graph below {report.reachable_flops:,}; ask for at least {least}"
        )
        raise SettingsError(message)


def _signature(config_type: type[CompressionConfig]) -> inspect.Signature:
    """Return the constructor's signature with every setting of a config in place of ``**settings``."""
    _, *given, _ = inspect.signature(CompressionPlugin.__init__).parameters.values()
    names = {parameter.name for parameter in given}
    settings = inspect.signature(config_type).parameters.values()
    return inspect.Signature([*given, *(setting for setting in settings if setting.name not in names)])


CompressionPlugin.__signature__ = _signature(CompressionConfig)
