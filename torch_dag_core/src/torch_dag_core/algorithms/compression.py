"""Base class of algorithms that reduce the cost of a graph.

All have the same constructor, target and steps, so one training loop works for channel pruning, block pruning and
low-rank compression, alone or one after the other.
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
from torch_dag_core.graph.entry_checks import require_graphs

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule

Progress = Callable[[str, int, int], None]


def _unseen(what: str, done: int, total: int) -> None:
    """Show nothing of how far something is."""
    del what, done, total


class CompressionAlgorithm(ABC):
    """A compression algorithm bound to one flat graph, which it does not change: it works on copies.

    A subclass defines ``name`` and ``config_type``, and implements the four steps.

    Attributes:
        name: The name of the algorithm for users.
        config_type: The class of its settings.
        model: The graph.
        config: The settings.
        input_shape: Shape of one sample of the first input, without the batch dimension.
        initial_normalized_flops: Cost of the graph in thousands of FLOPs per input pixel, for one sample.
        target_flops: The cost to reach, in FLOPs of one sample.
        target_normalized_flops: The cost to reach, in thousands of FLOPs per input pixel.
        removable_share: The largest share of FLOPs that can be removed.
        progress: Called while something takes long, with what it is, how much of it is done, and of how much.
    """

    __signature__: ClassVar[inspect.Signature]
    name: ClassVar[str]
    config_type: ClassVar[type[CompressionConfig]] = CompressionConfig

    def __init_subclass__(cls, **options: Any) -> None:
        """Give the constructor a signature that lists the fields of ``config_type``."""
        super().__init_subclass__(**options)
        cls.__signature__ = _signature(cls.config_type)

    def __init__(self, model: DagModule, input_shape: Sequence[int] | None, *required: Any, **settings: Any) -> None:
        """Check the settings, and that the target can be reached on this graph.

        Args:
            model: The graph to compress.
            input_shape: Shape of one sample, without the batch dimension; None uses the example inputs of the graph.
            *required: The settings without a default, in the order of the fields of ``config_type``.
            **settings: Settings by name: the fields of ``config_type``.

        Raises:
            SettingsError: a setting is wrong, or the target cannot be reached (the message says which can).
            TypeError: there is no setting of that name, or one is missing or given twice.
        """
        require_graphs(type(self).__name__, model)
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
        """Return the algorithm with the settings of ``config``."""
        require_graphs(cls.__name__, model)
        settings = {each.name: getattr(config, each.name) for each in dataclasses.fields(config)}
        return cls(model, input_shape, **settings)

    @abstractmethod
    def analyze(self) -> CompressionReport:
        """Return the candidates, what each costs, and how much can be removed; changes nothing."""

    @abstractmethod
    def prepare(self) -> DagModule:
        """Return a trainable graph with the algorithm's own parameters, on the device of ``model``."""

    @abstractmethod
    def losses(self, global_step: int) -> Losses:
        """Return the current share of cost and the losses to add, for the latest call of the prepared graph."""

    @abstractmethod
    def finalize(self) -> DagModule:
        """Return a plain graph that costs at most the target."""

    @property
    def looks_at_data(self) -> bool:
        """Whether `calibrate` makes a difference, with these settings."""
        return type(self).calibrate is not CompressionAlgorithm.calibrate

    def calibrate(self, batches: Iterable[Any]) -> None:
        """Process data before `prepare`; does nothing by default.

        Args:
            batches: Tensors, tuples that start with the inputs, or mappings by name of the input.
        """
        del batches

    def conclusion(self) -> str:
        """Return a sentence or two about the result of `finalize`, for the user; "" by default."""
        return ""

    def require_reachable(self, report: CompressionReport) -> None:
        """Check that ``target_flops`` can be reached.

        Raises:
            SettingsError: it cannot; the message says which ``keep_flops`` can.
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
    """Return the signature of the constructor, with the fields of ``config_type`` in place of ``*`` and ``**``."""
    _, model, input_shape, *_ = inspect.signature(CompressionAlgorithm.__init__).parameters.values()
    settings = dict(inspect.signature(config_type).parameters)
    required = [
        settings.pop(name).replace(kind=inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in _required(config_type)
    ]
    return inspect.Signature([model, input_shape, *required, *settings.values()])


CompressionAlgorithm.__signature__ = _signature(CompressionConfig)
