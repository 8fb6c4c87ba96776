"""The runs of a model that a conversion needs: at two sizes, in both modes, each made once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor, nn

from torch_dag_core.conversion.example_inputs import ExampleInputs
from torch_dag_core.conversion.folding import changing_constants, is_persistent
from torch_dag_core.conversion.joining import SizeError, Sizes, same_calls
from torch_dag_core.errors import TraceError
from torch_dag_core.tracing.recording import Recording
from torch_dag_core.tracing.snapshot import Snapshot
from torch_dag_core.tracing.trace import Treatments, trace


class ResizedTraceError(TraceError):
    """The model runs at its example sizes, but not at others."""


@dataclass(frozen=True)
class Variation:
    """What differs between two runs of a model.

    Attributes:
        batch: The batch sizes of both; None keeps the example's.
        step: What image sizes differ by whole steps of; 0 where they do not differ.
    """

    batch: tuple[int, int] | None
    step: int = 0

    def of(self, example: ExampleInputs, run: int) -> list[Tensor]:
        """Return the inputs of run 0 or 1, or of the check at a third size, 2."""
        if self.batch is None:
            return example.resized(batch=None, step=0)
        batch = self.batch[run] if run < 2 else 4 * self.batch[1] + 5
        return example.resized(batch=batch, step=self.step, times=run)


@dataclass
class Traces:
    """Runs a model on demand and remembers the recordings."""

    model: nn.Module
    example: ExampleInputs
    treatment: Treatments
    _made: dict[tuple[object, ...], Recording] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take one snapshot for all runs, because each run puts everything back."""
        self._snapshot = Snapshot(self.model)

    def both_modes(self, variation: Variation) -> tuple[Sizes, Sizes]:
        """Return the recordings in evaluation and in training, each at two sizes.

        Raises:
            SizeError: the model makes other calls at the second size.
            ResizedTraceError: the model fails at the second size.
            TraceError: the model cannot be traced at all.
        """
        evaluation = self._sizes(variation, training=False)
        # The second size is needed only where training makes other calls.
        run = self._trace if variation.batch is None else self._resized
        recording = run(variation, 0, training=True)
        same = same_calls(evaluation.recording, recording)
        training = evaluation.in_training(recording) if same else self._sizes(variation, training=True)
        unfolded = self._unfolded()
        return (
            replace(evaluation, unfolded=unfolded[evaluation.recording]),
            replace(training, unfolded=unfolded[training.recording]),
        )

    def _unfolded(self) -> dict[Recording, frozenset[int]]:
        """Return the constants of every recording so far that are none in the graph."""
        overwritten = frozenset(name for recording in self._made.values() for name in recording.written)
        persistent = partial(is_persistent, self.model)
        return {recording: changing_constants(recording, overwritten, persistent) for recording in self._made.values()}

    def _sizes(self, variation: Variation, *, training: bool) -> Sizes:
        if variation.batch is None:
            return Sizes(self._trace(variation, 0, training=training), None)
        recording = self._resized(variation, 0, training=training)
        sizes = Sizes.of(recording, self._resized(variation, 1, training=training))
        if recording.size_lost and not same_calls(recording, self._resized(variation, 2, training=training)):
            message = "the model makes other calls at other input sizes"
            raise SizeError(message)
        return sizes

    def _resized(self, variation: Variation, run: int, *, training: bool) -> Recording:
        try:
            return self._trace(variation, run, training=training)
        except TraceError as error:
            raise ResizedTraceError(str(error)) from error

    def _trace(self, variation: Variation, run: int, *, training: bool) -> Recording:
        tensors = variation.of(self.example, run)
        key = (*(tensor.shape for tensor in tensors), training)
        if key not in self._made:
            args, kwargs = self.example.call_arguments(tensors)
            self._made[key] = trace(
                self.model, args, kwargs, self.example.names, self.treatment, training=training,
                snapshot=self._snapshot,
            )  # fmt: skip
        return self._made[key]
