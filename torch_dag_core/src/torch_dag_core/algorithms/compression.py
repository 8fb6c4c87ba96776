"""The base of algorithms that make a graph cheaper: one constructor, one target, and the four steps of all algorithms.

One training loop drives channel pruning, block pruning and low-rank compression, alone or one after the other.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from torch_dag_core.algorithms.algorithm import Losses
from torch_dag_core.algorithms.reports import CompressionReport
from torch_dag_core.algorithms.settings import CompressionConfig
from torch_dag_core.analysis.vertex_facts import sample_shape
from torch_dag_core.errors import SettingsError

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule

Progress = Callable[[str, int, int], None]


def _unseen(what: str, done: int, total: int) -> None:
    """Show nothing of how far something is."""
    del what, done, total


class CompressionAlgorithm(ABC):
    """A compression algorithm bound to one flat graph, which it never changes: it works on copies.

    A subclass states its ``name`` and its ``config_type``, and implements the four steps.

    Attributes:
        name: What users call the algorithm.
        config_type: The class of its settings.
        model: The graph.
        config: The settings.
        input_shape: Shape of one sample of the first input, without the batch.
        initial_normalized_flops: Cost of the graph: FLOPs of one sample by input pixel, in thousands.
        target_flops: What is asked for: FLOPs of one sample.
        target_normalized_flops: The same, by input pixel, in thousands.
        removable_share: The share of FLOPs that can go at most.
        progress: Called while something takes long, with what it is, how much of it is done, and of how much.
    """

    __signature__: ClassVar[inspect.Signature]
    name: ClassVar[str]
    config_type: ClassVar[type[CompressionConfig]] = CompressionConfig

    def __init_subclass__(cls, **options: Any) -> None:
        """Spell out in the constructor's signature the settings that ``config_type`` has."""
        super().__init_subclass__(**options)
        cls.__signature__ = _signature(cls.config_type)

    def __init__(self, model: DagModule, input_shape: Sequence[int] | None, *required: Any, **settings: Any) -> None:
        """Check the settings and whether the graph can give what they ask for.

        Args:
            model: The graph to compress.
            input_shape: Shape of one sample, without the batch; None takes the example that the graph remembers.
            *required: The settings without a default, in the order of the fields of ``config_type``.
            **settings: Settings by name: the fields of ``config_type``.

        Raises:
            SettingsError: a setting is wrong, or the target is below what can be reached (the message says what is).
            TypeError: there is no setting of that name, or one is missing or given twice.
        """
        self.config = _configured(self.config_type, required, settings)
        self.model = model
        self.progress: Progress = _unseen
        self.input_shape = sample_shape(model, input_shape)
        report = self.analyze()
        self.target_flops = self.config.keep_flops * (self.config.reference_flops or report.flops)
        self.require_reachable(report)
        self.removable_share = report.removable_share
        self.initial_normalized_flops = self._normalize(report.flops)
        self.target_normalized_flops = self._normalize(self.target_flops)

    @classmethod
    def from_config(cls, model: DagModule, config: CompressionConfig, input_shape: Sequence[int] | None = None) -> Self:
        """Return the algorithm with the settings of a config."""
        settings = {each.name: getattr(config, each.name) for each in dataclasses.fields(config)}
        return cls(model, input_shape, **settings)

    @abstractmethod
    def analyze(self) -> CompressionReport:
        """Return the candidates, what each costs, and how much can go. Mutates nothing."""

    @abstractmethod
    def prepare(self) -> DagModule:
        """Return a trainable graph on the same device that holds the algorithm's own parameters."""

    @abstractmethod
    def losses(self, global_step: int) -> Losses:
        """Return the share of cost and the losses to add to the task's, for the last call of the prepared graph."""

    @abstractmethod
    def finalize(self) -> DagModule:
        """Return a plain graph that costs at most the target."""

    @property
    def looks_at_data(self) -> bool:
        """Whether `calibrate` makes a difference, with these settings."""
        return type(self).calibrate is not CompressionAlgorithm.calibrate

    def calibrate(self, batches: Iterable[Any]) -> None:
        """Look at data before `prepare`; an algorithm that needs none ignores it.

        Args:
            batches: Tensors, tuples that start with the inputs, or mappings by name of the input.
        """
        del batches

    def conclusion(self) -> str:
        """Return what a user should know of the finished graph, in a sentence or two; nothing by default."""
        return ""

    def require_reachable(self, report: CompressionReport) -> None:
        """Refuse ``target_flops`` if the algorithm cannot get there.

        Raises:
            SettingsError: says what can be reached.
        """
        if self.target_flops >= report.reachable_flops:
            return
        least = math.ceil(report.reachable_flops / self.target_flops * self.config.keep_flops * 1e4) / 1e4
        message = (
            f"keep_flops={self.config.keep_flops} asks for {self.target_flops:,.0f} FLOPs, but {self.name} cannot "
            f"get this graph below {report.reachable_flops:,}; ask for at least {least}"
        )
        raise SettingsError(message)

    def _normalize(self, flops: float) -> float:
        return flops / (1000 * math.prod(self.input_shape[1:]))


def _configured(
    config_type: type[CompressionConfig], required: Sequence[Any], settings: Mapping[str, Any]
) -> CompressionConfig:
    names = _required(config_type)
    if len(required) > len(names):
        message = f"{config_type.__name__} has {len(names)} settings without a default, got {len(required)} by position"
        raise TypeError(message)
    return config_type(**dict(zip(names, required, strict=False)), **settings)


def _required(config_type: type[CompressionConfig]) -> list[str]:
    parameters = inspect.signature(config_type).parameters.values()
    return [each.name for each in parameters if each.default is inspect.Parameter.empty]


def _signature(config_type: type[CompressionConfig]) -> inspect.Signature:
    """Return the constructor's signature with every setting of a config in place of the starred parameters."""
    _, model, input_shape, *_ = inspect.signature(CompressionAlgorithm.__init__).parameters.values()
    settings = dict(inspect.signature(config_type).parameters)
    required = [
        settings.pop(name).replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in _required(config_type)
    ]
    return inspect.Signature([model, input_shape, *required, *settings.values()])


CompressionAlgorithm.__signature__ = _signature(CompressionConfig)
