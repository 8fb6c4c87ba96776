"""What an algorithm on graphs looks like from outside, whichever plugin it comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from torch_dag_core.plugins import named_contributions

if TYPE_CHECKING:
    from torch_dag_core.dag import DagModule


class Algorithm(Protocol):
    """A learned change of a graph: prepared, trained with extra losses, and made real at the end."""

    def analyze(self, dag: DagModule, example_inputs: tuple[Any, ...]) -> Any:
        """Return what could be changed and what could not, with reasons; ``print`` shows it."""

    def prepare(self, dag: DagModule) -> DagModule:
        """Return a trainable copy that holds the algorithm's own parameters."""

    def losses(self, prepared: DagModule, step: int) -> Mapping[str, Tensor]:
        """Return the losses to add to the task's at this step, by name."""

    def finalize(self, prepared: DagModule) -> DagModule:
        """Return a plain graph with the learned change made real."""


@dataclass(frozen=True, kw_only=True)
class AlgorithmSpec:
    """One algorithm that plugins offer.

    Attributes:
        name: What users call it, such as ``channel-pruning``.
        summary: One sentence.
        config: Frozen dataclass of its settings.
        create: Returns the algorithm with these settings.
    """

    name: str
    summary: str
    config: type
    create: Callable[[Any], Algorithm]

    def __post_init__(self) -> None:
        """Refuse settings that somebody could change half-way."""
        parameters = getattr(self.config, "__dataclass_params__", None)
        if not dataclasses.is_dataclass(self.config) or parameters is None or not parameters.frozen:
            message = f"the config of algorithm {self.name!r} must be a frozen dataclass, got {self.config!r}"
            raise ValueError(message)


def algorithms() -> dict[str, AlgorithmSpec]:
    """Return every installed algorithm by name.

    Raises:
        PluginError: two distributions offer the same name.
    """
    return named_contributions("torch_dag_algorithms", AlgorithmSpec)
