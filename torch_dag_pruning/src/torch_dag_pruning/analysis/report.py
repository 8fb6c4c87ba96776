"""The report of an analysis: how many FLOPs can be removed, and what keeps the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch_dag_pruning.analysis.propagation import Propagation
from torch_dag_pruning.axes import Axis, Cause, Fixed
from torch_dag_pruning.axes.relation import Relation

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis

_LINES = 12


@dataclass
class Lock:
    """The FLOPs that stay because of one cause, and the vertices that they belong to."""

    flops: Any = 0
    vertices: list[str] = field(default_factory=list)


@dataclass
class Locks:
    """The FLOPs that stay when every orbit is at its minimum: those locked by a cause, and the floor.

    A cause counts if it froze the out axis of a learned op anywhere in the graph. A vertex is locked if such a cause
    froze one of its axes. What remains of all other vertices, such as a stem with one channel left, is the floor
    (``docs/axis-algebra.md``, C3).
    """

    locked: dict[Cause, Lock] = field(default_factory=dict)
    floor: Any = 0

    @classmethod
    def of(cls, find: Callable[[Axis], Axis], propagation: Propagation, costs: Mapping[str, Any]) -> Locks:
        """Attribute the cost of each vertex to the cause that locks it, or to the floor.

        Args:
            find: Resolves an axis.
            propagation: The relations of all vertices.
            costs: FLOPs of each vertex, by name, with every orbit at its minimum.
        """
        relations = propagation.relations
        roots = {c for relation in relations.values() for c in _causes(find, relation.learned)}
        locks = cls()
        for name, flops in costs.items():
            relation = relations.get(name)
            cause = relation and next((c for c in _causes(find, _axes(relation)) if c in roots), None)
            if not cause or not flops:
                locks.floor += flops
                continue
            lock = locks.locked.setdefault(cause, Lock())
            lock.flops += flops
            lock.vertices.append(name)
        return locks


def _axes(relation: Relation) -> Iterable[Axis]:
    """Iterate over the axes of a vertex, beginning with those that it makes with learned weights."""
    yield from relation.learned
    for axes in relation.outputs:
        yield from axes
    for sink in relation.sinks:
        yield from sink.axes


def _causes(find: Callable[[Axis], Axis], axes: Iterable[Axis]) -> Iterable[Cause]:
    for axis in axes:
        resolved = find(axis)
        if isinstance(resolved, Fixed) and resolved.n > 1 and resolved.cause is not None:
            yield resolved.cause


def to_text(analysis: Analysis, locks: Locks) -> str:
    """Return the text of the report: what can be removed, what stays, and why."""
    now = analysis.cost()
    slots = sum(orbit.n for orbit in analysis.orbits)
    share, parameters = f"{analysis.removable_share:.2%}", _short(analysis.parameters_count())
    lines = [
        f"{len(analysis.orbits)} orbits with {slots} slots",
        f"{share} of {_short(now)} FLOPs can be pruned; {parameters} parameters",
    ]
    ordered = sorted(locks.locked.items(), key=lambda item: -float(item[1].flops))
    lines += [_lock_line(cause, lock, now) for cause, lock in ordered[:_LINES]]
    if len(ordered) > _LINES:
        rest = sum(lock.flops for _, lock in ordered[_LINES:])
        lines.append(f"  locked {rest / now:8.3%}  by {len(ordered) - _LINES} other causes")
    lines.append(f"  floor  {locks.floor / now if now else 0:8.3%}  what is left of everything at its minimum")
    return "\n".join(lines)


def _lock_line(cause: Cause, lock: Lock, now: Any) -> str:
    where = ", ".join(lock.vertices[:3]) + (f" and {len(lock.vertices) - 3} more" if len(lock.vertices) > 3 else "")
    return f"  locked {lock.flops / now:8.3%}  {_short(lock.flops)} FLOPs  {cause}  at {where}"


def _short(count: Any) -> str:
    for unit in ("", "k", "M", "G", "T"):
        if float(count) < 1000:
            return f"{float(count):.4g}{unit}"
        count = float(count) / 1000
    return f"{float(count):.4g}P"
