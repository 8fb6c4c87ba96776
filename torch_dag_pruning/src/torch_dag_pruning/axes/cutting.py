"""Cutting an expression into consecutive pieces; this always succeeds (``docs/axis-algebra.md``, A3).

The functions recurse once for each level of nesting in a resolved expression, which is
logarithmic in its number of slots.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias

from torch_dag_pruning.axes.bindings import Bindings
from torch_dag_pruning.axes.expression import Atom, Axis, Cause, Concat, Fixed, Product, concat, product


def cut(bindings: Bindings, axis: Axis, offsets: Sequence[int], cause: Cause | None) -> list[Axis]:
    """Return the pieces of `axis` between consecutive offsets, binding atoms that are cut.

    Args:
        bindings: The atoms, which may get bound here.
        axis: Any expression.
        offsets: Strictly ascending positions between 0 and the size of the axis, both excluded.
        cause: Recorded for slots that become Fixed because the cut leaves them alone in a piece.
    """
    axis = bindings.find(axis)
    if not offsets:
        return [axis]
    segments = _SEGMENTS[type(axis)](bindings, axis, offsets, cause)
    return list(_join_segments(segments, widths(offsets, axis.n)))


def widths(offsets: Sequence[int], n: int) -> list[int]:
    """Return the sizes of the pieces that cuts at these offsets make of `n` slots."""
    return [end - start for start, end in itertools.pairwise((0, *offsets, n))]


def inner_offsets(concatenation: Concat) -> list[int]:
    """Return the offsets at which one part ends and the next begins."""
    return list(itertools.accumulate(part.n for part in concatenation.parts[:-1]))


def _join_segments(segments: Iterable[Axis], sizes: Iterable[int]) -> Iterator[Axis]:
    """Concatenate consecutive segments into pieces of the given sizes."""
    stream = iter(segments)
    for size in sizes:
        piece: list[Axis] = []
        missing = size
        while missing:
            piece.append(next(stream))
            missing -= piece[-1].n
        yield concat(*piece)


def _fixed_segments(_bindings: Bindings, axis: Fixed, offsets: Sequence[int], _cause: Cause | None) -> list[Axis]:
    return [Fixed(n, axis.cause) for n in widths(offsets, axis.n)]


def _atom_segments(bindings: Bindings, axis: Atom, offsets: Sequence[int], cause: Cause | None) -> list[Axis]:
    return bindings.divide(axis, widths(offsets, axis.n), concat, cause)


def _concat_segments(bindings: Bindings, axis: Concat, offsets: Sequence[int], cause: Cause | None) -> list[Axis]:
    ends = [*inner_offsets(axis), axis.n]
    local: dict[int, list[int]] = defaultdict(list)
    index = 0
    for offset in offsets:
        while ends[index] <= offset:
            index += 1
        local[index].append(offset - ends[index] + axis.parts[index].n)
    pieces = (cut(bindings, part, [o for o in local[i] if o], cause) for i, part in enumerate(axis.parts))
    return list(itertools.chain.from_iterable(pieces))


def _product_segments(bindings: Bindings, axis: Product, offsets: Sequence[int], cause: Cause | None) -> list[Axis]:
    """Cut the outer factor at row boundaries; a row that is cut inside is a single, hence Fixed, slot of it."""
    outer, row = axis.factors[0], product(*axis.factors[1:])
    inside = _offsets_by_row(offsets, row.n)
    rows = {r for r, within in inside.items() if within}
    marks = (set(inside) | {r + 1 for r in rows}) - {0, outer.n}
    # All rows are the same expression, so it is cut once, wherever any of them is cut.
    pieces = cut(bindings, row, sorted(set().union(*inside.values())), cause)
    segments: list[Axis] = []
    at = 0
    for block in cut(bindings, outer, sorted(marks), cause):
        segments += _join_segments(pieces, widths(inside[at], row.n)) if at in rows else [product(block, row)]
        at += block.n
    return segments


def _offsets_by_row(offsets: Sequence[int], width: int) -> dict[int, list[int]]:
    """Return, for each row in which an offset lies, the offsets inside it; none for an offset at its start."""
    inside: dict[int, list[int]] = {}
    for offset in offsets:
        row, within = divmod(offset, width)
        inside.setdefault(row, []).extend([within] if within else [])
    return inside


_Segments: TypeAlias = Callable[[Bindings, Any, Sequence[int], Cause | None], list[Axis]]

_SEGMENTS: Final[dict[type[Axis], _Segments]] = {
    Fixed: _fixed_segments,
    Atom: _atom_segments,
    Concat: _concat_segments,
    Product: _product_segments,
}
