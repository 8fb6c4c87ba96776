"""What differs between the runs of a model that a graph is read from."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from torch_dag_core.conversion.example_inputs import ExampleInputs


@dataclass(frozen=True)
class Variation:
    """What differs between two runs of a model.

    Attributes:
        batch: The batch sizes of both; None keeps the example's.
        step: What image sizes differ by whole steps of; 0 where they do not differ.
        multiples: Whether the graph takes only multiples of the example's batch.
    """

    batch: tuple[int, int] | None
    step: int = 0
    multiples: bool = False

    @property
    def free(self) -> str | None:
        """What the graph takes other values of: ``image size``, ``batch size`` alone, or nothing."""
        if self.batch is None:
            return None
        return "image size" if self.step else "batch size"

    def of(self, example: ExampleInputs, run: int) -> list[Tensor]:
        """Return the inputs of run 0 or 1."""
        if self.batch is None:
            return example.resized(batch=None, step=0)
        return example.resized(batch=self.batch[run], step=self.step, times=run)
