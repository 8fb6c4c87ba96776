"""States integers that follow the input sizes over sizes of the graph's values."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from torch_dag_core.conversion.derivation import Form, form_of
from torch_dag_core.conversion.free_sizes import Formula, FreeSize, SizeOf
from torch_dag_core.graph.values import Size
from torch_dag_core.tracing.recording import Ref

_MOST_DIMS = 4


class Shaped(Protocol):
    """A value of the graph."""

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape of a tensor, in which sizes that follow the inputs are `FreeSize`; None for anything else."""


V = TypeVar("V", bound=Shaped)


@dataclass(frozen=True)
class Stated(Generic[V]):
    """A statement of one integer.

    Attributes:
        size: The statement, over ``operands``.
        operands: The given ones, and those that it needs besides.
        rests_on: A formula that has to have the same value as the integer's own, where the two were merely equal in
            all recordings; None where there is nothing to check, or no formula to compare with.
        is_fraction: Whether it is a fraction of a size, though it is not known how the model computed it.
    """

    size: Size
    operands: tuple[V, ...]
    rests_on: Formula | None = None
    is_fraction: bool = False


@dataclass(frozen=True)
class Statements(Generic[V]):
    """Finds statements.

    Attributes:
        inputs: Inputs of the graph.
        seen: All values so far with sizes that follow the inputs.
        recorded: Gives the value of a recorded tensor; None where the graph has none yet.
        batches: The batch size of every recording.
    """

    inputs: Sequence[V]
    seen: Sequence[V]
    recorded: Callable[[Ref], V | None]
    batches: tuple[int, ...]

    def find(self, target: FreeSize, operands: tuple[V, ...], *, more: bool) -> Stated[V] | None:
        """State ``target`` over sizes of the operands; where that fails, over other values, made operands.

        A size of an operand, or a product of several, comes first; then the way in which the model computed
        ``target``; then whatever merely had the same values in all recordings.

        Args:
            target: The integer.
            operands: The operands of the op whose constant it is.
            more: Whether the op takes operands for their sizes alone.
        """
        form = None if target.formula is None else form_of(target.formula)
        if form is not None and form.whole:
            for position, value in enumerate(operands):
                product = next(filter(_is_product, _over(target, value.shape)), None)
                if product is not None:
                    return Stated(product.shifted(position), operands)
            derived = self._derived(form, operands, more=more)
            if derived is not None:
                return derived
        return self._of_equal_value(target, operands)

    def _derived(self, form: Form, operands: tuple[V, ...], *, more: bool) -> Stated[V] | None:
        """Return the form over sizes of the operands; with ``more``, values that have its sizes become operands."""
        extended, dims = operands, []
        for leaf in form.leaves:
            place = _place(leaf, extended)
            if place is None and more:
                found = self._holder(leaf)
                if found is not None:
                    extended, place = (*extended, found[0]), (len(extended), found[1])
            if place is None:
                return None
            dims.append(place)
        return Stated(Size(tuple(dims), form.num, form.den, form.add), extended)

    def _holder(self, leaf: SizeOf) -> tuple[V, int] | None:
        """Return a value with this size, and the dimension: an input, or the value whose size the model read."""
        place = _place(leaf, self.inputs)
        if place is not None:
            return self.inputs[place[0]], place[1]
        value = None if leaf.tensor is None else self.recorded(leaf.tensor)
        return None if value is None else (value, leaf.dim)

    def _of_equal_value(self, target: FreeSize, operands: tuple[V, ...]) -> Stated[V] | None:
        """State what had the same values in all recordings.

        A product of sizes counts more than a fraction or multiple of one, which may round another way at other
        image sizes.
        """
        known = len(operands)
        for exact in (True, False):
            for position, value in enumerate((*operands, *self.inputs, *reversed(self.seen))):
                found = next((s for s in _over(target, value.shape) if not exact or self._is_exact(s, target)), None)
                if found is None:
                    continue
                extended = operands if position < known else (*operands, value)
                size = found.shifted(min(position, known))
                if target.formula is None:
                    return Stated(size, extended, is_fraction=found.den > 1)
                return Stated(size, extended, rests_on=_formula(found, value.shape or ()))
        return None

    def _is_exact(self, size: Size, target: FreeSize) -> bool:
        """Tell whether the statement holds at every image size: a plain product, or one of numbers of samples."""
        batches = self.batches if len(self.batches) == len(target.values) else (1,) * len(target.values)
        is_batch = all(n * batches[0] == target.values[0] * b for n, b in zip(target.values, batches, strict=True))
        return is_batch or _is_product(size)


def _place(leaf: SizeOf, values: Sequence[V]) -> tuple[int, int] | None:
    """Return which dimension of which value has the values of a size."""
    places = ((place, dim, n) for place, value in enumerate(values) for dim, n in enumerate(value.shape or ()))
    return next(((place, dim) for place, dim, n in places if type(n) is FreeSize and n.values == leaf.values), None)


def _is_product(size: Size) -> bool:
    return (size.num, size.den, size.add) == (1, 1, 0)


def _formula(size: Size, shape: tuple[int, ...]) -> Formula:
    """Return a size over dimensions of one value as a formula."""
    formula: Formula = size.num
    for _, dim in size.dims:
        extent = shape[dim]
        factor = SizeOf(None, dim, extent.values) if type(extent) is FreeSize else int(extent)
        formula = ("mul", formula, factor)
    return ("add", ("floordiv", formula, size.den), size.add)


def _over(target: FreeSize, shape: tuple[int, ...] | None) -> Iterator[Size]:
    """Yield ``target`` as rational multiples of products of free sizes of ``shape``, and as one plus a constant."""
    free = [(dim, size.values) for dim, size in enumerate(shape or ()) if type(size) is FreeSize]
    for count in range(1, min(len(free), _MOST_DIMS) + 1):
        for chosen in itertools.combinations(free, count):
            products = [math.prod(sizes) for sizes in zip(*(values for _, values in chosen), strict=True)]
            here = products[0]
            if all(n * here == target.values[0] * p for n, p in zip(target.values, products, strict=True)):
                common = math.gcd(int(target), here)
                dims = tuple((0, dim) for dim, _ in chosen)
                yield Size(dims, int(target) // common, here // common)
    for dim, values in free:
        differences = {n - m for n, m in zip(target.values, values, strict=True)}
        if len(differences) == 1:
            yield Size(((0, dim),), add=differences.pop())
