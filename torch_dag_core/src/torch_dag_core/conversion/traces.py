"""The runs of a model that a conversion needs: at several sizes, in both modes, each made once."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from torch_dag_core.conversion.agreement import known_conditions, other_sizes, shapes_of
from torch_dag_core.conversion.example_inputs import ExampleInputs
from torch_dag_core.conversion.joining import FreeSize, SizeError, Sizes, keep_unfolded, same_calls, same_numbers
from torch_dag_core.conversion.variation import Variation
from torch_dag_core.errors import TraceError
from torch_dag_core.graph.conditions import hold
from torch_dag_core.tracing.following import Scope, Scopes, imported_functions
from torch_dag_core.tracing.trace import Trace, Treatment, trace

_MOST_RUNS = 4
"""Two far apart, that of the example, and one close to it; runs made for something else count too."""


class ResizedTraceError(TraceError):
    """The model runs at its example sizes, but not at others."""


@dataclass
class Traces:
    """Runs a model on demand and remembers its traces."""

    model: nn.Module
    example: ExampleInputs
    treatment: Callable[[nn.Module], Treatment]
    _made: dict[tuple[object, ...], Trace] = field(default_factory=dict)
    _scopes: Scopes = field(default_factory=lambda: Scopes((), imported_functions()))

    def both_modes(self, variation: Variation) -> tuple[Sizes, Sizes]:
        """Return the traces in evaluation and in training, each at several sizes.

        Raises:
            SizeError: the model makes other calls at other sizes.
            ResizedTraceError: the model fails at other sizes.
            TraceError: the model cannot be traced at all.
        """
        count = 1 if variation.batch is None else 2
        runs = [variation.of(self.example, run) for run in range(count)]
        evaluation, training = self._at(runs)
        # A model that never asks for a size makes the same calls at all of them.
        while count > 1 and (further := self._further(evaluation, training, variation)) is not None:
            runs.append(further)
            evaluation, training = self._at(runs)
        state = frozenset(name for made in self._made.values() for name in made.state)
        for made in self._made.values():
            keep_unfolded(made, self.model, state)
        return evaluation, training

    def _at(self, runs: list[list[Tensor]]) -> tuple[Sizes, Sizes]:
        """Return the traces of both modes at these sizes."""
        run = self._trace if len(runs) == 1 else self._resized
        evaluation = Sizes(*(run(inputs, training=False) for inputs in runs))
        first = run(runs[0], training=True)
        # Other sizes are needed only where training computes something else.
        if same_calls(evaluation.trace, first) and same_numbers(evaluation.trace, first):
            return evaluation, evaluation.in_training(first)
        return evaluation, Sizes(*(run(inputs, training=True) for inputs in runs))

    def _further(self, evaluation: Sizes, training: Sizes, variation: Variation) -> list[Tensor] | None:
        """Return the inputs of the next run that has to agree.

        That is the example's own; then every one that was traced already, and which the graph would take; then one of
        other sizes, unless there were enough; then none.
        """
        if not any(sizes.trace.sizes.used for sizes in (evaluation, training)):
            return None
        known = [shapes_of(trace.inputs) for trace in evaluation.traces]
        conditions = known_conditions((evaluation, training), variation, self.example.batch)
        example = self.example.resized(batch=None, step=0)
        if not hold(conditions, shapes_of(example)):
            message = "the model takes another path at other batch sizes"
            raise SizeError(message)
        free = [[type(size) is FreeSize for size in shape] for shape in evaluation.input_shapes]
        made = (trace.inputs for trace in self._made.values())
        for inputs in (example, *made):
            shapes = shapes_of(inputs)
            if shapes not in known and _differ_only(shapes, known[0], free) and hold(conditions, shapes):
                return inputs
        return other_sizes(self.example, variation.step, conditions, known) if len(known) < _MOST_RUNS else None

    def _resized(self, inputs: list[Tensor], *, training: bool) -> Trace:
        try:
            return self._trace(inputs, training=training)
        except TraceError as error:
            raise ResizedTraceError(str(error)) from error

    def _trace(self, inputs: list[Tensor], *, training: bool) -> Trace:
        key = (*(tensor.shape for tensor in inputs), training)
        while key not in self._made:
            made = self._run(inputs, training=training)
            fresh = tuple(scope for scope in made.sizes.scopes if not _holds(self._scopes.converting, scope))
            if not fresh:
                self._made[key] = made
            # Builtins of these namespaces have to be followed from the start.
            self._scopes = self._scopes._replace(converting=(*self._scopes.converting, *fresh))
        return self._made[key]

    def _run(self, inputs: list[Tensor], *, training: bool) -> Trace:
        args, kwargs = self.example.call_arguments(inputs)
        return trace(
            self.model, args, kwargs, self.example.names, self.treatment, training=training, scopes=self._scopes
        )


def _differ_only(shapes: list[torch.Size], others: list[torch.Size], free: list[list[bool]]) -> bool:
    """Tell whether shapes differ in free sizes alone."""
    sizes = zip(itertools.chain(*shapes), itertools.chain(*others), itertools.chain(*free), strict=True)
    return all(size == other or is_free for size, other, is_free in sizes)


def _holds(scopes: tuple[Scope, ...], scope: Scope) -> bool:
    return any(scope is known for known in scopes)
