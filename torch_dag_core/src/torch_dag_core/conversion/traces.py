"""The runs of a model that a conversion needs: at several sizes, in both modes, each made once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from torch import Tensor, nn

from torch_dag_core.conversion.agreement import known_conditions, other_sizes, shapes_of
from torch_dag_core.conversion.axes import IMAGE
from torch_dag_core.conversion.divisors import step_of
from torch_dag_core.conversion.example_inputs import STEPS, ExampleInputs
from torch_dag_core.conversion.folding import changing_constants, is_persistent
from torch_dag_core.conversion.free_sizes import FreeSize, SizeError
from torch_dag_core.conversion.hidden_reads import refuse_hidden
from torch_dag_core.conversion.joining import Sizes, same_calls, same_numbers
from torch_dag_core.conversion.variation import Variation
from torch_dag_core.errors import TraceError
from torch_dag_core.graph.conditions import hold
from torch_dag_core.tracing.disguise import VALUES, Disguise
from torch_dag_core.tracing.function_gradients import CheckedFunctions
from torch_dag_core.tracing.namespaces import holds, scopes_of
from torch_dag_core.tracing.recording import Recording, Shape
from torch_dag_core.tracing.run_settings import RunSettings
from torch_dag_core.tracing.snapshot import Snapshot
from torch_dag_core.tracing.trace import Treatments, trace

_MOST_RUNS = 4
"""Two far apart, that of the example, and one close to it, in which height and width differ.

Runs made for other variations count too, but not those that only told whether larger steps hold.
"""


_ALLOWED_CALLS = 1_000
"""How many more calls than twice those of other sizes a run may make before it is given up."""


class ResizedTraceError(TraceError):
    """The model runs at its example sizes, but not at others."""


@dataclass
class Traces:
    """Runs a model on demand and remembers the recordings."""

    model: nn.Module
    example: ExampleInputs
    treatment: Treatments
    _made: dict[tuple[tuple[Shape, ...], bool], Recording] = field(default_factory=dict)
    _failed: dict[tuple[tuple[Shape, ...], bool], str] = field(default_factory=dict)
    _probed: set[tuple[Shape, ...]] = field(default_factory=set)
    _repeated: set[tuple[tuple[Shape, ...], bool]] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Take one snapshot for all runs, because each run puts everything back."""
        self._snapshot, self._functions = Snapshot(self.model), CheckedFunctions()
        self._scopes = scopes_of(self._snapshot.modules)

    def both_modes(self, variation: Variation, *, evaluation_only: bool = False) -> tuple[Sizes, Sizes]:
        """Return the recordings in evaluation and in training, each at several sizes.

        Args:
            variation: What the sizes are.
            evaluation_only: Whether evaluation stands for training too.

        Raises:
            SizeError: the model makes other calls at other sizes.
            ResizedTraceError: the model fails at other sizes.
            TraceError: the model cannot be traced at all.
        """
        # What holds at whole steps holds at whole multiples of them. A guess at what is free is given up in one run.
        if variation.step in STEPS[0 if variation.axes is not IMAGE else 1 : -1]:
            largest = self._evaluation(replace(variation, step=STEPS[-1])).others[0]
            self._probed.add(largest.input_shapes)
        evaluation = self._evaluation(variation)
        training = evaluation if evaluation_only else self._training(evaluation, variation)
        # A model that never asks for a size makes the same calls at all of them.
        while variation.batch is not None and (further := self._further(evaluation, training, variation)) is not None:
            evaluation = evaluation.joined_with(self._resized(further, training=False))
            if evaluation_only:
                training = evaluation
            elif training.twin is None:
                training = training.joined_with(self._resized(further, training=True))
            else:
                training = evaluation.in_training(training.recording)
        self._refuse_hidden(evaluation, training=False)
        if not evaluation_only and training.twin is None:
            self._refuse_hidden(training, training=True)
        unfolded = self._unfolded()
        return (
            replace(evaluation, unfolded=unfolded[evaluation.recording]),
            replace(training, unfolded=unfolded[training.recording]),
        )

    @cached_property
    def step(self) -> int:
        """What the model divides sizes by at its example's sizes; 1 where it cannot be traced there."""
        try:
            return step_of(self._resized(self.example.resized(batch=None, step=0), training=False))
        except ResizedTraceError:
            return 1

    def _unfolded(self) -> dict[Recording, frozenset[int]]:
        """Return the constants of every recording so far that are none in the graph."""
        overwritten = frozenset(name for recording in self._made.values() for name in recording.written)
        persistent = partial(is_persistent, self.model)
        return {recording: changing_constants(recording, overwritten, persistent) for recording in self._made.values()}

    def _evaluation(self, variation: Variation) -> Sizes:
        """Return the recordings in evaluation at the sizes of a variation."""
        return Sizes.of(*self._runs(variation, training=False))

    def _training(self, evaluation: Sizes, variation: Variation) -> Sizes:
        runs = self._runs(variation, training=True)
        first = next(runs)
        # Other sizes are needed only where training computes something else.
        if same_calls(evaluation.recording, first) and same_numbers(evaluation.recording, first):
            return evaluation.in_training(first)
        return Sizes.of(first, *runs)

    def _runs(self, variation: Variation, *, training: bool) -> Iterator[Recording]:
        """Make the runs of a variation, each when it is asked for."""
        if variation.batch is None:
            yield self._trace(variation.of(self.example, 0), RunSettings(training, repeats=True))
            return
        for run in range(2):
            yield self._resized(variation.of(self.example, run), training=training)

    def _further(self, evaluation: Sizes, training: Sizes, variation: Variation) -> list[Tensor] | None:
        """Return the inputs of the next run that has to agree.

        That is the example's own; then every one that was recorded already, and which the graph would take; then one of
        other sizes, unless there were enough; then none.
        """
        if not any(sizes.recording.sizes.is_any for sizes in (evaluation, training)):
            return None
        known = [recording.input_shapes for recording in evaluation.recordings]
        free = [[type(size) is FreeSize for size in shape] for shape in evaluation.input_shapes]
        made = (shapes_of(self.example.tensors), *(shapes for shapes, _ in self._made))
        others = [shapes for shapes in made if shapes not in known and _differ_only(shapes, known[0], free)]
        is_enough = len(set(known) - self._probed) >= _MOST_RUNS
        if is_enough and not others:
            return None
        conditions = known_conditions((evaluation, training), variation, self.example.batch)
        if not hold(conditions, shapes_of(self.example.tensors)):
            message = "the model takes another path at other batch sizes"
            raise SizeError(message)
        found = next((shapes for shapes in others if hold(conditions, shapes)), None)
        if found is not None:
            return self.example.shaped(found)
        return None if is_enough else other_sizes(self.example, variation, conditions, known)

    def _resized(self, inputs: list[Tensor], *, training: bool) -> Recording:
        key = shapes_of(inputs), training
        if key in self._failed:
            raise ResizedTraceError(self._failed[key])
        try:
            return self._trace(inputs, RunSettings(training, most_calls=self._most_calls(training=training)))
        except TraceError as error:
            self._failed[key] = str(error)
            raise ResizedTraceError(str(error)) from error

    def _refuse_hidden(self, sizes: Sizes, *, training: bool) -> None:
        """Run the model while sizes show wrong values, which may change nothing.

        Raises:
            SizeError: something hidden follows a size.
        """
        if not sizes.recording.sizes.is_any or not sizes.others:
            return
        resized = sizes.others[0]
        inputs = self.example.shaped(resized.input_shapes)
        settings = RunSettings(training, most_calls=self._most_calls(training=training))
        for value in VALUES:
            try:
                disguised = self._followed(inputs, replace(settings, disguise=Disguise(sizes.recording, value)))
            except TraceError:  # the model may fail where it reads wrong sizes
                continue
            refuse_hidden(sizes.recording, resized, disguised)

    def _most_calls(self, *, training: bool) -> int | None:
        """Return a number of entries beyond which a run cannot agree with those that were made."""
        known = [len(made.entries) for (_, is_training), made in self._made.items() if is_training == training]
        return _ALLOWED_CALLS + 2 * max(known) if known else None

    def _trace(self, inputs: list[Tensor], settings: RunSettings) -> Recording:
        """Return the recording at the sizes of ``inputs``, made twice where no other size can contradict it."""
        key = shapes_of(inputs), settings.training
        if key not in self._made or (settings.repeats and key not in self._repeated):
            self._made[key] = self._followed(inputs, settings)
            self._repeated.update([key] if settings.repeats else ())
        return self._made[key]

    def _followed(self, inputs: list[Tensor], settings: RunSettings) -> Recording:
        """Run the model until no namespace is left whose builtins have to be followed from the start."""
        args, kwargs = self.example.call_arguments(inputs)
        while True:
            made = trace(
                self.model, args, kwargs, self.example.names, self.treatment, settings, scopes=self._scopes,
                snapshot=self._snapshot, functions=self._functions,
            )  # fmt: skip
            fresh = tuple(scope for scope in made.sizes.scopes if not holds(self._scopes.converting, scope))
            if not fresh:
                return made
            self._scopes = self._scopes._replace(converting=(*self._scopes.converting, *fresh))


def _differ_only(shapes: Sequence[Shape], others: Sequence[Shape], free: list[list[bool]]) -> bool:
    """Tell whether shapes differ in free sizes alone."""
    sizes = zip(itertools.chain(*shapes), itertools.chain(*others), itertools.chain(*free), strict=True)
    return all(size == other or is_free for size, other, is_free in sizes)
