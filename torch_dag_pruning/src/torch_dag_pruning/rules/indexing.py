"""Axis rules of ops that read or write slots by position (O10, O12)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from torch_dag_core.graph.values import Slot
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_pruning.axes import Axis, Fixed, concat
from torch_dag_pruning.axes.relation import Axes, Context, FromEnd, Relation, axis_rule
from torch_dag_pruning.axes.stand_in import Emptied
from torch_dag_pruning.rules.broadcasting import broadcast
from torch_dag_pruning.rules.stand_ins import restated
from torch_dag_pruning.rules.touching import all_frozen, frozen

_PICKED = "slots are picked by position"


@axis_rule("core.index", stand_in=restated)
def index(ctx: Context) -> Relation:
    """Cut sliced axes, freeze axes indexed by ints or tensors, and insert the axes of index tensors (O10, O12)."""
    if _selects_by_mask(ctx):
        return all_frozen(ctx, "a bool mask picks slots")
    picked = _Picking(ctx)
    axes = picked.run()
    if [axis.n for axis in axes] != list(ctx.outputs[0]):
        return all_frozen(ctx, _PICKED)
    return Relation([axes], rewrite={"items": picked.items})


def unwritten(graph: Emptied, vertex: InnerVertex, _: set[int]) -> None:
    """Use the copied tensor unchanged: the value is empty, so the region that it is written to is empty as well."""
    graph.skip(vertex, 0)


@axis_rule("core.set_index", stand_in=unwritten)
def set_index(ctx: Context) -> Relation:
    """Unify the written region with the value; the result has the axes of the first operand."""
    if _selects_by_mask(ctx):
        return all_frozen(ctx, "a bool mask picks slots")
    picked = _Picking(ctx)
    region = picked.run()
    if ctx.module.value is None:
        value = ctx.inputs[1]
        if len(value) > len(region) or not _fits(region, value):
            return all_frozen(ctx, _PICKED)
        broadcast(ctx, [region, value])
    return Relation([list(ctx.inputs[0])], rewrite={"items": picked.items})


def _selects_by_mask(ctx: Context) -> bool:
    masks = (item for item in ctx.module.items if isinstance(item, Slot) and ctx.dtypes[item.index] == torch.bool)
    return any(True for _ in masks) or any(isinstance(item, bool) for item in ctx.module.items)


def _is_negative(bound: int | None) -> bool:
    return bound is not None and bound < 0


def _fits(region: Axes, value: Axes) -> bool:
    pairs = zip(reversed(region), reversed(value), strict=False)
    return all(theirs.n in (1, ours.n) for ours, theirs in pairs)


@dataclass
class _Picking:
    """Derives the axes selected by an index expression, item by item from left to right.

    Attributes:
        items: After `run`, the items of the index, with slice bounds as axes.
    """

    ctx: Context
    items: tuple[Any, ...] = ()
    _result: Axes = field(default_factory=list)
    _advanced: list[tuple[int, Axes]] = field(default_factory=list)
    _dim: int = 0

    def run(self) -> Axes:
        """Return the axes of the selected elements."""
        given = self.ctx.module.items
        rank = len(self.ctx.inputs[0])
        rewritten: list[Any] = []
        for item in given:
            if item is Ellipsis:
                missing = rank - sum(other is not None and other is not Ellipsis for other in given)
                self._pass(missing)
                rewritten.append(item)
            else:
                rewritten.append(self._item(item))
        self._pass(rank - self._dim)
        self.items = tuple(rewritten)
        return self._joined()

    def _pass(self, count: int) -> None:
        self._result += self.ctx.inputs[0][self._dim : self._dim + count]
        self._dim += count

    def _take(self) -> Axis:
        self._dim += 1
        axis: Axis = self.ctx.inputs[0][self._dim - 1]
        return axis

    def _item(self, item: Any) -> Any:
        if item is None:
            self._result.append(Fixed(1))
        elif isinstance(item, slice):
            return self._slice(item)
        elif isinstance(item, Slot):
            self.ctx.freeze([self._take()], _PICKED)
            self._advanced.append((len(self._result), self.ctx.inputs[item.index]))
        else:
            self.ctx.freeze([self._take()], _PICKED)
        return item

    def _joined(self) -> Axes:
        """Insert the axes of the index tensors where torch does: in place of adjacent ones, otherwise first."""
        if not self._advanced:
            return self._result
        axes = broadcast(self.ctx, [axes for _, axes in self._advanced])
        places = {place for place, _ in self._advanced}
        place = min(places) if len(places) == 1 else 0
        return [*self._result[:place], *axes, *self._result[place:]]

    def _slice(self, item: slice) -> Any:
        axis = self._take()
        bounds = (item.start, item.stop, item.step)
        if bounds in ((None, None, None), (0, None, None), (None, None, 1), (0, None, 1)):
            self._result.append(axis)
            return item
        if not all(bound is None or isinstance(bound, int) for bound in bounds):
            self.ctx.freeze([axis], _PICKED)
            self._result.append(self._free_result())
            return item
        start, stop, step = item.indices(axis.n)
        if step == 1:
            return self._range(axis, item, start, max(start, stop))
        picked, rewritten = self._stride(axis, start, max(start, stop), step)
        self._result.append(picked)
        return rewritten

    def _free_result(self) -> Axis:
        """Return the axis of a slice whose bounds depend on input sizes; its size is that of the result."""
        place = len(self._result)
        shape = self.ctx.outputs[0]
        return Fixed(shape[place] if place < len(shape) else 0, self.ctx.cause(_PICKED))

    def _range(self, axis: Axis, given: slice, start: int, stop: int) -> slice:
        """Return the bounds, each counted from where the model counts it, because other parts may lose slots."""
        cause = self.ctx.cause("a single slot is sliced off")
        before, piece, behind = self.ctx.solver.cut(axis, [start, stop], cause)
        self._result.append(piece)
        first = FromEnd(concat(piece, behind)) if _is_negative(given.start) else before
        end = FromEnd(behind) if _is_negative(given.stop) else concat(before, piece)
        return slice(first if start else None, None if stop >= axis.n else end, None)

    def _stride(self, axis: Axis, start: int, stop: int, step: int) -> tuple[Axis, slice]:
        count = len(range(start, stop, step))
        rows = self._rows(axis, start, stop, step)
        if rows is not None:
            return rows, slice(start, None, step)
        self.ctx.freeze([axis], _PICKED)
        return Fixed(count, self.ctx.cause(_PICKED)), slice(start, stop, step)

    def _rows(self, axis: Axis, start: int, stop: int, step: int) -> Axis | None:
        """Return the axis of rows if the stride picks one slot of each row of ``step`` slots, otherwise None (O10)."""
        if axis.n % step or start >= step or stop <= axis.n - step + start:
            return None
        pair = self.ctx.solver.split_right(axis, step, self.ctx.cause(_PICKED))
        if pair is None:
            return None
        self.ctx.freeze([pair[1]], "one slot of every row is picked")
        return pair[0]


@axis_rule("core.gather")
def gather(ctx: Context) -> Relation:
    """Freeze the dimension that is indexed; along it the result has the axis of the index tensor (O12)."""
    x, where = ctx.inputs
    (dim,) = frozen(ctx, x, [ctx.module.dim], _PICKED)
    for place, (axis, other) in enumerate(zip(x, where, strict=True)):
        if place != dim:
            ctx.unify(axis, other)
    return Relation([list(where)])


@axis_rule("core.index_select")
def index_select(ctx: Context) -> Relation:
    """Freeze the dimension that is indexed, and put the axis of the index tensor in its place (O12)."""
    x, where = ctx.inputs
    (dim,) = frozen(ctx, x, [ctx.module.dim], _PICKED)
    return Relation([[*x[:dim], *(where or [Fixed(1)]), *x[dim + 1 :]]])


@axis_rule("core.embedding")
def embedding(ctx: Context) -> Relation:
    """Freeze the rows of the table; its width is a learned axis (O12).

    ``max_norm`` freezes the width as well, because renormalisation sums over it (O5).
    """
    own = ctx.parameters("weight")
    if ctx.module.max_norm is not None:
        ctx.freeze(own["weight"], "rows are renormalised")
    return _rows_of(ctx, own["weight"], own)


@axis_rule("core.embedding_function")
def embedding_function(ctx: Context) -> Relation:
    """Apply the rule of embeddings with the table as an operand."""
    return _rows_of(ctx, ctx.inputs[1], {})


def _rows_of(ctx: Context, table: Axes, parameters: dict[str, Axes]) -> Relation:
    rows, width = table
    ctx.freeze([rows], "rows are looked up")
    rewrite = {"embedding_dim": width}
    return Relation([[*ctx.inputs[0], width]], (), parameters, rewrite, learned=(width,))
