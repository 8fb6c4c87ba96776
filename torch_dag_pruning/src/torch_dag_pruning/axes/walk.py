"""Integer arithmetic of reshapes. All sequences of sizes run from right to left."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Sequence


def marks(sizes: Sequence[int]) -> list[int]:
    """Return the running products of `sizes`, without the total."""
    return list(itertools.accumulate(sizes, operator.mul))[:-1]


def groups(left: Sequence[int], right: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Yield the minimal stretches of both lists whose running products end equal (rule 3).

    Args:
        left: Sizes, all above 1.
        right: Sizes, all above 1, with the same product.
    """
    i = j = 0
    while i < len(left):
        start = i, j
        reached, other = left[i], right[j]
        i, j = i + 1, j + 1
        while reached != other:
            if reached < other:
                reached, i = reached * left[i], i + 1
            else:
                other, j = other * right[j], j + 1
        yield slice(start[0], i), slice(start[1], j)


def row_marks(ends: Sequence[int], width: int, total: int) -> list[int]:
    """Return the row starts that set the rows with an end inside apart from the others.

    Rows are `width` wide. An end between two parts that falls on a row start yields itself, any
    other the two row starts around it; 0 and `total` are left out.
    """
    rows = {end // width for end in ends} | {-(-end // width) for end in ends}
    return sorted({row * width for row in rows} - {0, total})
