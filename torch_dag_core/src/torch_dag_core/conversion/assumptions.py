"""What a graph rests on, as conditions on its inputs: decisions taken on sizes, and how its constants follow them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from torch_dag_core.conversion.derivation import same_form
from torch_dag_core.conversion.joining import Claim, FreeSize, SizeError, SizeOf, Sizes
from torch_dag_core.conversion.variation import Variation
from torch_dag_core.graph.conditions import LEAF, check, evaluate
from torch_dag_core.graph.inputs import Assumption

Shapes = Sequence[Sequence[int]]


class Conditions:
    """Turns what traces recorded into assumptions, each once.

    Args:
        inputs: Shapes of the inputs; sizes that follow the input sizes are `FreeSize`.
        step: What image sizes were seen at whole steps of alone; 0 where they are fixed.
    """

    def __init__(self, inputs: Shapes, step: int) -> None:
        self._inputs, self._step = inputs, step
        self._found: dict[Assumption, None] = {}

    @property
    def found(self) -> tuple[Assumption, ...]:
        """The assumptions so far."""
        return tuple(self._found)

    def add_guards(self, sizes: Sizes) -> None:
        """Add the comparisons that the model made.

        Raises:
            SizeError: one rests on a size that does not follow the input sizes simply.
        """
        for guard in sizes.trace.sizes.guards:
            comparison, left, right = guard.holding
            self._add(comparison, sizes.resolved(left), sizes.resolved(right), guard.source)

    def add_losses(self, sizes: Sizes) -> None:
        """Add that what was lost of sizes, or returned, has the value that it had in all traces.

        Raises:
            SizeError: it had several, and what became of it is not known.
        """
        log = sizes.trace.sizes
        for loss in (*log.losses, *log.returned, *log.unused()):
            expression = sizes.resolved(loss.expression)
            if not _is_open(expression):
                continue
            runs = range(count_of(expression))
            values = {evaluate(expression, lambda leaf, run=run: leaf.values[run]) for run in runs}  # type: ignore[misc]
            if len(values) == 1:
                self._add("eq", expression, values.pop(), loss.source)
            elif loss.hides:
                message = f"the model turns a size into an ordinary object at {loss.source}, which hides what follows"
                raise SizeError(message)

    def add_claims(self, claims: Sequence[Claim]) -> None:
        """Add what constants rest on.

        Raises:
            SizeError: one rests on a size that does not follow the input sizes simply.
        """
        for claim in claims:
            if not same_form(claim.expression, claim.value):
                self._add("eq", claim.expression, claim.value, claim.source)

    def add_steps(self, variation: Variation, batch: int) -> None:
        """Add that free sizes are whole steps from those traced, where they were seen at whole steps alone."""
        if variation.step > 1:
            self._add_steps(variation.step, beyond_batch=True)
        if variation.multiples:
            self._add_steps(batch, beyond_batch=False)

    def _add_steps(self, step: int, *, beyond_batch: bool) -> None:
        for index, shape in enumerate(self._inputs):
            for dim, size in enumerate(shape):
                if (dim > 0) == beyond_batch and type(size) is FreeSize:
                    self._found[Assumption(("eq", ("mod", (LEAF, index, dim), step), int(size) % step))] = None

    def _add(self, comparison: str, left: Any, right: Any, source: str) -> None:
        if not _is_open(left) and not _is_open(right):
            return
        condition = (comparison, self._over_inputs(left, source), self._over_inputs(right, source))
        if _always(condition):
            return
        try:
            check(condition, len(self._inputs))
        except ValueError as error:
            message = f"the model computes with sizes at {source} in a way that no condition can state: {error}"
            raise SizeError(message) from error
        self._found[Assumption(condition)] = None

    def _over_inputs(self, expression: Any, source: str) -> Any:
        if isinstance(expression, tuple):
            return (expression[0], *(self._over_inputs(operand, source) for operand in expression[1:]))
        if not isinstance(expression, SizeOf):
            return expression
        found = next(self._leaves(expression.values), None)
        if found is None:
            what = f"the model computes with sizes at {source}"
            message = f"{what} in a way that does not follow the inputs' sizes simply"
            raise SizeError(message)
        return found

    def _leaves(self, values: tuple[int, ...]) -> Iterator[Any]:
        """Yield an intermediate size over those of the inputs: as one of them, a multiple or a fraction."""
        places = [
            ((LEAF, index, dim), size.values)
            for index, shape in enumerate(self._inputs)
            for dim, size in enumerate(shape)
            if type(size) is FreeSize
        ]
        yield from (leaf for leaf, extents in places if extents == values)
        for leaf, extents in places:
            common = math.gcd(values[0], extents[0])
            num, den = values[0] // common, extents[0] // common
            exact = all(value * den == num * extent for value, extent in zip(values, extents, strict=True))
            if exact and (leaf[2] == 0 or (self._step and self._step % den == 0)):
                product = ("mul", leaf, num) if num != 1 else leaf
                yield ("floordiv", product, den) if den != 1 else product


def count_of(expression: Any) -> int:
    """Return in how many traces the sizes of an expression are known."""
    if isinstance(expression, SizeOf):
        return len(expression.values)
    return max(map(count_of, expression[1:]), default=0) if isinstance(expression, tuple) else 0


def _is_open(expression: Any) -> bool:
    """Tell whether an expression has a size in it that follows the inputs."""
    return isinstance(expression, (tuple, SizeOf))


def _always(condition: tuple[Any, ...]) -> bool:
    """Tell whether the condition holds for every tensor that is not empty."""
    comparison, left, right = condition
    if left == right:
        return comparison in ("eq", "le", "ge")
    is_size = isinstance(left, tuple) and left[0] == LEAF
    return is_size and right == 0 and comparison in ("ne", "gt", "ge")
