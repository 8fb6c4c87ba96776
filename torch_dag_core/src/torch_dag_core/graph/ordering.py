"""Topological order, and the check that an edit creates no cycle."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator

from torch_dag_core.errors import CycleError
from torch_dag_core.graph.vertex import InnerVertex, UserVertex, Vertex


def topological(vertices: Iterable[Vertex]) -> list[InnerVertex]:
    """Return the inner vertices in the given order, each moved behind its predecessors. O(n), without recursion."""
    done: set[Vertex] = set()
    order: list[InnerVertex] = []
    for root in vertices:
        stack: list[tuple[Vertex, Iterator[Vertex]]] = []
        path: dict[Vertex, None] = {}
        pending: Vertex | None = root if root not in done else None
        while pending is not None or stack:
            if pending is not None:
                path[pending] = None
                stack.append((pending, iter(pending.predecessors)))
                pending = None
            vertex, rest = stack[-1]
            for predecessor in rest:
                if predecessor in path:
                    raise CycleError(_cycle(list(path), predecessor))
                if predecessor not in done:
                    pending = predecessor
                    break
            else:
                stack.pop()
                del path[vertex]
                done.add(vertex)
                if isinstance(vertex, InnerVertex):
                    order.append(vertex)
    return order


def _cycle(path: list[Vertex], start: Vertex) -> list[str]:
    """Return the names along the cycle, in the direction of the data."""
    loop = path[path.index(start) :]
    return [vertex.name for vertex in (start, *reversed(loop))]


def refuse_cycle(source: Vertex, users: Collection[UserVertex], earlier: Iterable[Vertex]) -> None:
    """Raise `CycleError` where ``source``, which ``users`` are about to read, depends on one of them.

    ``earlier`` names vertices that the users already depend on, so that nothing at or before them can depend on a
    user. Both sides are walked backwards, the second one faster, until all that ``source`` depends on is known to
    be earlier: a local edit costs what lies between, not everything upstream. O(n) at worst.
    """
    reader: dict[Vertex, Vertex | None] = {source: None}
    open_ = deque([source])
    safe = dict.fromkeys(earlier)
    safe_open = deque(safe)
    while open_:
        vertex = open_.popleft()
        if vertex in users:
            raise CycleError(_path_to(vertex, reader))
        if vertex in safe:
            continue
        for predecessor in vertex.predecessors:
            if predecessor not in reader:
                reader[predecessor] = vertex
                open_.append(predecessor)
        _extend(safe, safe_open, steps=4)


def _extend(safe: dict[Vertex, None], open_: deque[Vertex], *, steps: int) -> None:
    for _ in range(steps):
        if not open_:
            return
        fresh = [vertex for vertex in open_.popleft().predecessors if vertex not in safe]
        safe.update(dict.fromkeys(fresh))
        open_.extend(dict.fromkeys(fresh))


def _path_to(user: Vertex, reader: dict[Vertex, Vertex | None]) -> list[str]:
    names, vertex = [user.name], reader[user]
    while vertex is not None:
        names.append(vertex.name)
        vertex = reader[vertex]
    return [*names, user.name]
