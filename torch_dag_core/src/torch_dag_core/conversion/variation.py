"""What differs between the runs of a model that a graph is read from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from torch_dag_core.conversion.axes import IMAGE, Axes
from torch_dag_core.conversion.example_inputs import ExampleInputs


@dataclass(frozen=True)
class Variation:
    """What differs between two runs of a model.

    Attributes:
        batch: The batch sizes of both; None keeps the example's.
        step: What sizes along ``axes`` differ by whole steps of; 0 where they do not differ.
        multiples: Whether the graph takes only multiples of the example's batch.
        axes: Which sizes differ besides the batch.
    """

    batch: tuple[int, int] | None
    step: int = 0
    multiples: bool = False
    axes: Axes = IMAGE

    @property
    def free(self) -> str | None:
        """What the graph takes other values of: sizes by their name, ``batch size`` alone, or nothing."""
        if self.batch is None:
            return None
        return self.axes.name if self.step else "batch size"

    def of(self, example: ExampleInputs, run: int) -> list[Tensor]:
        """Return the inputs of run 0 or 1."""
        if self.batch is None:
            return example.resized(batch=None, step=0)
        return example.resized(batch=self.batch[run], step=self.step, times=run, axes=self.axes)
