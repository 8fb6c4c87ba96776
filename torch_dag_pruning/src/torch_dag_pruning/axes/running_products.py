"""Integer arithmetic of reshapes.

A row-major reshape matches sizes from the right, so all lists of sizes here are in reverse: the
innermost size is first.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Sequence


def running_products(sizes: Sequence[int]) -> list[int]:
    """Return the running products of `sizes`, without the total: `[2, 3, 4]` gives `[2, 6]`."""
    return list(itertools.accumulate(sizes, operator.mul))[:-1]


def matching_stretches(left: Sequence[int], right: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Yield pairs of minimal stretches of both lists that have equal products (``docs/axis-algebra.md``, A4).

    `[4, 6]` and `[2, 2, 6]`, for instance, give the pairs (`[4]`, `[2, 2]`) and (`[6]`, `[6]`).

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


def row_boundaries(ends: Sequence[int], width: int, total: int) -> list[int]:
    """Return the row starts at which to cut so that every row with a seam inside is a piece of its own.

    Args:
        ends: Offsets of the seams between the parts of a concatenation.
        width: Slots in a row.
        total: Slots in the whole concatenation.

    Returns:
        A seam that coincides with a row start gives that offset, any other the row starts before
        and after it. 0 and `total` are left out.
    """
    rows = {end // width for end in ends} | {-(-end // width) for end in ends}
    return sorted({row * width for row in rows} - {0, total})
