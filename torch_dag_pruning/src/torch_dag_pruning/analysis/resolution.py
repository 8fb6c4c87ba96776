"""Resolving the axes in relations, once all equalities are solved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from torch_dag_pruning.axes import Atom, Axis, AxisSolver, Concat, Fixed, Product, atoms
from torch_dag_pruning.axes.relation import Axes, FromEnd, Relation, Sink

_AXES = (Fixed, Atom, Product, Concat)
_SIZES = (*_AXES, FromEnd)


def leaves(axis: Axis) -> Iterator[tuple[int | None, Atom]]:
    """Iterate over the atoms of a resolved axis, each with its position among the leaves.

    The position is None if the axis is nothing but an atom.
    """
    if isinstance(axis, Atom):
        yield None, axis
        return
    stack: list[Axis] = [axis]
    position = 0
    while stack:
        node = stack.pop()
        stack.extend(reversed(node.children))
        if isinstance(node, Atom):
            yield position, node
        position += not node.children


@dataclass
class Resolution:
    """Resolves axes with a cache, so that each expression is resolved once."""

    solver: AxisSolver
    _cache: dict[int, tuple[Axis, Axis]] = field(default_factory=dict)

    def axis(self, axis: Axis) -> Axis:
        """Return the axis as an expression over free atoms."""
        cached = self._cache.get(id(axis))
        if cached is None:
            cached = self._cache[id(axis)] = (axis, self.solver.find(axis))
        return cached[1]

    def axes(self, axes: Sequence[Axis]) -> Axes:
        """Return the axes of one tensor as expressions over free atoms."""
        return [self.axis(axis) for axis in axes]

    def relation(self, module: nn.Module, relation: Relation) -> Relation:
        """Return a relation with all axes resolved, and without entries that involve no prunable axis.

        Args:
            module: The module of the vertex; tells which entries of ``rewrite`` would change nothing.
            relation: What the rule of the vertex returned.
        """
        sinks = (Sink(s.operand, s.dims, tuple(self.axes(s.axes))) for s in relation.sinks)
        statistics = tuple(self.axes(relation.statistics))
        minimum = ((self.axis(axis), least) for axis, least in relation.minimum)
        return replace(
            relation,
            outputs=[self.axes(axes) for axes in relation.outputs],
            sinks=tuple(sink for sink in sinks if any(map(atoms, sink.axes))),
            parameters={name: self.axes(axes) for name, axes in relation.parameters.items()},
            rewrite=self._rewritten(module, relation.rewrite),
            masked=relation.masked if any(map(atoms, statistics)) else None,
            statistics=statistics,
            minimum=tuple((axis, least) for axis, least in minimum if atoms(axis)),
            learned=tuple(self.axes(relation.learned)),
        )

    def _rewritten(self, module: nn.Module, rewrite: Any) -> dict[str, Any]:
        resolved = {name: self._resolve_entry(value, getattr(module, name, None)) for name, value in rewrite.items()}
        return {name: value for name, value in resolved.items() if _differs(value, getattr(module, name, None))}

    def _resolve_entry(self, value: Any, original: Any) -> Any:
        """Resolve the axes in an entry; a part without prunable slots becomes what the module has there now."""
        if isinstance(value, _AXES):
            axis = self.axis(value)
            return axis if atoms(axis) else original
        if isinstance(value, FromEnd):
            axis = self.axis(value.axis)
            return FromEnd(axis) if atoms(axis) else original
        if isinstance(value, slice):
            parts = [self._resolve_entry(getattr(value, end), None) for end in ("start", "stop", "step")]
            if not any(isinstance(part, _SIZES) for part in parts) and not _is_open_stride(value, original):
                return original
            ends = zip((value.start, value.stop, value.step), parts, strict=True)
            return slice(*(part if isinstance(part, _SIZES) else _number(end) for end, part in ends))
        if isinstance(value, tuple):
            originals = original if isinstance(original, (tuple, list)) else (None,) * len(value)
            return tuple(self._resolve_entry(v, o) for v, o in zip(value, originals, strict=True))
        return value


def _number(end: Any) -> Any:
    if isinstance(end, FromEnd):
        return -end.axis.n
    return end.n if isinstance(end, _AXES) else end


def _is_open_stride(value: slice, original: Any) -> bool:
    """Tell whether a rule has replaced the end of a strided slice by None, which the result must keep.

    Such a slice takes one slot from every row of its step. It has no axis in it, and yet its old end would be wrong
    once rows are removed.
    """
    return isinstance(original, slice) and value.step not in (None, 1) and value.stop is None


def _differs(value: Any, original: Any) -> bool:
    if isinstance(value, slice) and isinstance(original, slice):
        return (value.start, value.stop, value.step) != (original.start, original.stop, original.step)
    return bool(value != (tuple(original) if isinstance(original, list) else original))
