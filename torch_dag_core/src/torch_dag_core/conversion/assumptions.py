"""What a graph rests on, as conditions on its inputs: decisions taken on sizes, and how its constants follow them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from torch_dag_core.conversion.derivation import same_form
from torch_dag_core.conversion.free_sizes import Claim, Formula, FreeSize, SizeError, SizeOf, grows
from torch_dag_core.conversion.joining import Sizes
from torch_dag_core.conversion.variation import Variation
from torch_dag_core.graph.conditions import LEAF, check, evaluate
from torch_dag_core.graph.inputs import Assumption

Shapes: TypeAlias = Sequence[Sequence[int]]
Condition: TypeAlias = "float | tuple[str, *tuple[Condition, ...]]"
"""A formula over sizes of the inputs, as `torch_dag_core.graph.conditions` has it."""


class Conditions:
    """Turns what was recorded into assumptions, each once.

    Args:
        inputs: Shapes of the inputs; sizes that follow the input sizes are `FreeSize`.
        step: What the image sizes of the recordings differ by multiples of; 0 where they are fixed.
    """

    def __init__(self, inputs: Shapes, step: int) -> None:
        self._inputs, self._step = inputs, step
        self._found: dict[Assumption, None] = {}

    @property
    def found(self) -> tuple[Assumption, ...]:
        """The assumptions so far."""
        return tuple(self._found)

    def add_guards(self, sizes: Sizes) -> None:
        """Add the comparisons that the model made, and what it needs of the state of its caller.

        Raises:
            SizeError: one rests on a size that does not follow the input sizes simply.
        """
        for recording in sizes.recordings:
            self._found.update((Assumption(condition), None) for condition in recording.conditions)
        for guard in sizes.recording.sizes.guards:
            self._add(guard.holding, sizes.resolved(guard.left), sizes.resolved(guard.right), guard.source)

    def add_losses(self, sizes: Sizes) -> None:
        """Add that what was lost of sizes, or returned, has the value that it had in all recordings.

        Raises:
            SizeError: it had several, and what became of it is not known.
        """
        for loss in sizes.recording.sizes.losses:
            formula = sizes.resolved(loss.expression)
            if not _is_open(formula):
                continue
            values = [_value(formula, run) for run in range(_count(formula))]
            if values.count(values[0]) == len(values):
                self._add("eq", formula, values[0], loss.source)
            elif loss.hides and not (loss.is_unseen and grows(formula) and values[0] != values[1]):
                message = f"the model turns a size into an ordinary object at {loss.source}, which hides what follows"
                raise SizeError(message)

    def add_claims(self, claims: Iterable[Claim]) -> None:
        """Add what constants rest on.

        Raises:
            SizeError: one rests on a size that does not follow the input sizes simply.
        """
        for claim in claims:
            if not same_form(claim.formula, claim.value):
                self._add("eq", claim.formula, claim.value, claim.source)

    def add_steps(self, variation: Variation, batch: int) -> None:
        """Add that free sizes are whole steps from the recorded ones, where only such sizes were recorded."""
        if variation.step > 1:
            self._add_steps(variation.step, beyond_batch=True)
        if variation.multiples:
            self._add_steps(batch, beyond_batch=False)

    def _add_steps(self, step: int, *, beyond_batch: bool) -> None:
        for index, shape in enumerate(self._inputs):
            for dim, size in enumerate(shape):
                if (dim > 0) == beyond_batch and type(size) is FreeSize:
                    self._found[Assumption(("eq", ("mod", (LEAF, index, dim), step), int(size) % step))] = None

    def _add(self, comparison: str, left: Formula, right: Formula, source: str) -> None:
        if not _is_open(left) and not _is_open(right):
            return
        condition = (comparison, self._over_inputs(left, source), self._over_inputs(right, source))
        if _always(*condition):
            return
        try:
            check(condition, len(self._inputs))
        except ValueError as error:
            message = f"the model computes with sizes at {source} in a way that no condition can state: {error}"
            raise SizeError(message) from error
        self._found[Assumption(condition)] = None

    def _over_inputs(self, formula: Formula, source: str) -> Condition:
        if isinstance(formula, tuple):
            return (formula[0], *(self._over_inputs(operand, source) for operand in formula[1:]))
        if not isinstance(formula, SizeOf):
            return formula
        found = next(self._leaves(formula.values), None)
        if found is None:
            what = f"the model computes with sizes at {source}"
            message = f"{what} in a way that does not follow the inputs' sizes simply"
            raise SizeError(message)
        return found

    def _leaves(self, values: tuple[int, ...]) -> Iterator[Condition]:
        """Yield an intermediate size over those of the inputs: as one of them, a multiple or a fraction."""
        places = [
            (index, dim, size.values)
            for index, shape in enumerate(self._inputs)
            for dim, size in enumerate(shape)
            if type(size) is FreeSize
        ]
        yield from ((LEAF, index, dim) for index, dim, extents in places if extents == values)
        for index, dim, extents in places:
            common = math.gcd(values[0], extents[0])
            num, den = values[0] // common, extents[0] // common
            exact = all(value * den == num * extent for value, extent in zip(values, extents, strict=True))
            if exact and (dim == 0 or (self._step and self._step % den == 0)):
                leaf: Condition = (LEAF, index, dim)
                product = ("mul", leaf, num) if num != 1 else leaf
                yield ("floordiv", product, den) if den != 1 else product


def _count(formula: Formula) -> int:
    """Return in how many recordings the sizes of a formula are known."""
    if isinstance(formula, SizeOf):
        return len(formula.values)
    return max(map(_count, formula[1:]), default=0) if isinstance(formula, tuple) else 0


def _value(formula: Formula, run: int) -> float:
    """Return the value of a formula in one of the recordings."""
    value: float = evaluate(formula, lambda leaf: leaf.values[run])
    return value


def _is_open(formula: Formula) -> bool:
    """Tell whether a formula has a size in it that follows the inputs."""
    return isinstance(formula, (tuple, SizeOf))


def _always(comparison: str, left: Condition, right: Condition) -> bool:
    """Tell whether a comparison is true for every tensor that is not empty."""
    if left == right:
        return comparison in ("eq", "le", "ge")
    is_size = isinstance(left, tuple) and left[0] == LEAF
    return is_size and right == 0 and comparison in ("ne", "gt", "ge")
