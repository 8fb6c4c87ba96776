"""Further sizes at which a model and its graph have to agree, beyond the two that its constants are read from.

Two recordings tell which constants follow sizes, but not how: ``n % 2`` is the same at 13 and 11. So a model that
reads sizes is recorded at its example's own sizes too, and at others that the known conditions admit. Its constants are
joined over all these recordings, and in the end the graph is run for shapes at the last of these sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

import torch
from torch import Tensor

from torch_dag_core.conversion.assumptions import Conditions
from torch_dag_core.conversion.example_inputs import ExampleInputs, first_size
from torch_dag_core.conversion.free_sizes import SizeError
from torch_dag_core.conversion.joining import Sizes
from torch_dag_core.conversion.variation import Variation
from torch_dag_core.errors import InputError
from torch_dag_core.graph.conditions import hold
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.inputs import Assumption
from torch_dag_core.plugins.registry import Registry
from torch_dag_core.shape_run import ShapeRun
from torch_dag_core.tracing.execution import META
from torch_dag_core.tracing.recording import Recording, Shape

_SMALL_BATCHES = (3, 2, 4, 1), tuple(range(5, 17))
_DIVISORS = (2, 3, 4, 5, 7)
_FACTORS = (2, 3, 5)


def shapes_of(tensors: Iterable[Tensor]) -> tuple[Shape, ...]:
    """Return the shapes of tensors."""
    return tuple(tuple(tensor.shape) for tensor in tensors)


def known_conditions(modes: tuple[Sizes, Sizes], variation: Variation, batch: int) -> tuple[Assumption, ...]:
    """Return the conditions that a graph of these recordings will have, as far as they are known before it is built.

    Raises:
        SizeError: a decision does not follow the input sizes simply.
    """
    conditions = Conditions(modes[0].input_shapes, variation.step)
    for sizes in modes:
        conditions.add_guards(sizes)
        for index in sizes.recording.computing if sizes.twin is None else ():
            # Whether the graph needs a call that cannot be joined shows when it is built.
            with suppress(SizeError):
                conditions.add_claims(sizes.arguments(index).claims)
    conditions.add_steps(variation, batch)
    return conditions.found


def other_sizes(
    example: ExampleInputs, variation: Variation, conditions: tuple[Assumption, ...], known: list[tuple[Shape, ...]]
) -> list[Tensor] | None:
    """Return inputs that respect the conditions, of sizes that were not recorded yet; None where none are found."""
    for times in (2, 0) if variation.step else (0,):
        for batch in _other_batches(example.batch, {first_size(shapes) for shapes in known}):
            inputs = example.resized(batch=batch, step=variation.step, times=times, axes=variation.axes)
            shapes = shapes_of(inputs)
            if shapes not in known and hold(conditions, shapes):
                return inputs
    return None


def _other_batches(batch: int, known: set[int]) -> list[int]:
    """Return batch sizes to try: small ones, most new remainders first, and multiples of the example's."""
    seen = {(divisor, size % divisor) for size in known for divisor in _DIVISORS}

    def fresh(size: int) -> int:
        return sum((divisor, size % divisor) not in seen for divisor in _DIVISORS)

    few, more = (sorted(sizes, key=fresh, reverse=True) for sizes in _SMALL_BATCHES)
    first, second = (few, more) if batch > max(few) else (sorted([*few, *more], key=fresh, reverse=True), [])
    return [*first, *second, *(factor * batch for factor in _FACTORS), batch]


def check_shapes(dag: DagModule, registry: Registry, recordings: Sequence[Recording]) -> None:
    """Run the graph for shapes, and compare what it returns with what the model did in evaluation.

    Raises:
        SizeError: a tensor has another shape.
    """
    shape_run = ShapeRun(registry)
    for place, recording in enumerate(recordings):
        inputs = [torch.empty(outcome.shape or (), dtype=outcome.dtype, device=META) for outcome in recording.inputs]
        try:
            found = shape_run.values(dag, inputs)
        except InputError as error:
            if place == 0:
                return  # one of its ops does not run without data at any size
            raise SizeError(str(error)) from error
        vertices = dag.output_vertex(training=False).predecessors
        _compare(recording, [tuple(found[vertex].shape) for vertex in vertices])


def _compare(recording: Recording, shapes: Sequence[Shape]) -> None:
    """Raise a `SizeError` where outputs of a graph have other shapes than those of the recorded model."""
    for place, (shape, index) in enumerate(zip(shapes, recording.outputs, strict=True)):
        expected = recording.entries[index].outcome.shape
        if shape != expected:
            at = ", ".join(map(str, recording.input_shapes))
            message = f"output {place} has shape {shape} where the model's has {expected}, for inputs {at}"
            raise SizeError(message)
