"""Which whole steps the sizes of a model's inputs come in, read from the divisions that the model makes of sizes."""

from __future__ import annotations

import math
from collections.abc import Iterator

from torch_dag_core.graph.nested import leaves
from torch_dag_core.tracing.expressions import EntrySize, Expression
from torch_dag_core.tracing.recording import Recording

_LARGEST_STEP = 512


def step_of(recording: Recording) -> int:
    """Return the least common multiple of what a model divides sizes by, in units of its inputs' sizes.

    A model that partitions a map of a quarter of the image's size into windows of 7 has the step 28. Returns 1 where
    nothing is divided, or the multiple is above 512.
    """
    found = 1
    for expression in _expressions(recording):
        for size, divisor in _divisions(expression):
            found = math.lcm(found, divisor * _stride(recording, size))
            if found > _LARGEST_STEP:
                return 1
    return found


def _expressions(recording: Recording) -> Iterator[Expression]:
    """Yield what the model compared, and what it gave to calls."""
    for guard in recording.sizes.guards:
        yield from (guard.left, guard.right)
    for index in recording.computing:
        entry = recording.entries[index]
        for leaf in leaves((entry.args, entry.keywords)):
            expression = getattr(leaf, "expression", None)
            if expression is not None:
                yield expression


def _divisions(expression: Expression) -> Iterator[tuple[EntrySize, int]]:
    """Yield the sizes that an expression divides, and the divisors."""
    stack = [expression]
    while stack:
        part = stack.pop()
        if not isinstance(part, tuple):
            continue
        operation, *operands = part
        if operation in ("mod", "floordiv"):
            size, divisor = operands
            if isinstance(size, EntrySize) and isinstance(divisor, int) and divisor > 1:
                yield size, divisor
        stack.extend(operands)


def _stride(recording: Recording, size: EntrySize) -> int:
    """Return how many times an input's size is that of an inner tensor; 1 where none is a multiple of it."""
    shape = recording.entries[size.index].outcome.shape
    inner = shape[size.dim] if shape else 0
    outer = {extent for shape in recording.input_shapes for extent in shape[1:]}
    multiples = [extent // inner for extent in outer if inner and extent % inner == 0]
    return min(multiples, default=1)
