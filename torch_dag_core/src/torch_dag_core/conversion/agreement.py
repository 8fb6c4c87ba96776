"""What a graph read from two traces must agree with: the model at its example, and at other sizes that it takes.

Two traces tell which constants follow sizes, not how: ``n % 2`` is the same at 13 and 11. So a model that reads sizes
is traced at its example's own sizes too, and at others that everything known of the graph so far admits. Its constants
are joined over all these traces, and in the end the graph is run for shapes at the same sizes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from torch_dag_core.analysis.shape_run import ShapeRun
from torch_dag_core.conversion.assumptions import Conditions
from torch_dag_core.conversion.example_inputs import ExampleInputs, first_size
from torch_dag_core.conversion.joining import SizeError, Sizes
from torch_dag_core.conversion.variation import Variation
from torch_dag_core.errors import InputError
from torch_dag_core.graph.conditions import hold
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.inputs import Assumption
from torch_dag_core.plugins.registry import Registry
from torch_dag_core.tracing.trace import Trace

_SMALL_BATCHES = (3, 2, 4, 1), tuple(range(5, 17))
_DIVISORS = (2, 3, 4, 5, 7)
_FACTORS = (2, 3, 5)


def shapes_of(tensors: Sequence[Tensor]) -> list[torch.Size]:
    """Return the shapes of tensors."""
    return [tensor.shape for tensor in tensors]


def known_conditions(modes: tuple[Sizes, Sizes], variation: Variation, batch: int) -> tuple[Assumption, ...]:
    """Return the conditions that a graph of these traces will have, as far as they are known before it is built.

    Raises:
        SizeError: a decision does not follow the input sizes simply.
    """
    conditions = Conditions(modes[0].input_shapes, variation.step)
    for sizes in modes:
        conditions.add_guards(sizes)
        for node in sizes.trace.nodes:
            _add_claims(conditions, sizes, node)
        sizes.claims.clear()
    conditions.add_steps(variation, batch)
    return conditions.found


def _add_claims(conditions: Conditions, sizes: Sizes, node: fx.Node) -> None:
    sizes.claims.clear()
    try:
        sizes.joined_arguments(node)
        conditions.add_claims(sizes.claims)
    except SizeError:
        return  # whether the graph needs this call shows when it is built


def other_sizes(
    example: ExampleInputs, step: int, conditions: tuple[Assumption, ...], known: list[list[torch.Size]]
) -> list[Tensor] | None:
    """Return inputs that respect the conditions, of other sizes than those traced; None where none are found."""
    for times in (2, 0) if step else (0,):
        for batch in _other_batches(example.batch, {first_size(shapes) for shapes in known}):
            inputs = example.resized(batch=batch, step=step, times=times)
            shapes = shapes_of(inputs)
            if shapes not in known and hold(conditions, shapes):
                return inputs
    return None


def _other_batches(batch: int, known: set[int]) -> list[int]:
    """Return batch sizes to try: small ones, those first that leave remainders which no known one leaves; multiples."""
    seen = {(divisor, size % divisor) for size in known for divisor in _DIVISORS}

    def fresh(size: int) -> int:
        return sum((divisor, size % divisor) not in seen for divisor in _DIVISORS)

    few, more = (sorted(sizes, key=fresh, reverse=True) for sizes in _SMALL_BATCHES)
    first, second = (few, more) if batch > max(few) else (sorted([*few, *more], key=fresh, reverse=True), [])
    return [*first, *second, *(factor * batch for factor in _FACTORS), batch]


def check_shapes(dag: DagModule, registry: Registry, traces: Sequence[Trace]) -> None:
    """Run the graph for shapes, and compare what it returns with what the model did.

    Raises:
        SizeError: a tensor has another shape.
    """
    shape_run = ShapeRun(registry)
    ran = False
    for trace in traces:
        try:
            found = shape_run.values(dag, trace.inputs)
        except InputError as error:
            if not ran:
                return  # one of its ops does not run without data at any size
            raise SizeError(str(error)) from error
        ran = True
        outputs = dag.output_vertex(training=False).predecessors
        for place, (vertex, node) in enumerate(zip(outputs, trace.outputs, strict=True)):
            shape, expected = tuple(found[vertex].shape), node.meta["shape"]
            if shape != expected:
                at = ", ".join(str(tuple(tensor.shape)) for tensor in trace.inputs)
                message = f"output {place} has shape {shape} where the model's has {expected}, for inputs {at}"
                raise SizeError(message)
