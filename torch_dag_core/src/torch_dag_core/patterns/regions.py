"""Regions of a graph that dominance determines: residual blocks."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Mapping

from torch import nn

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.entry_checks import require_graphs
from torch_dag_core.graph.vertex import InnerVertex, Vertex
from torch_dag_core.ops.arithmetic import Add
from torch_dag_core.patterns.dominance import dominators


def residual_blocks(dag: DagModule, *, sums: Collection[type[nn.Module]] = (Add,)) -> list[tuple[InnerVertex, ...]]:
    """List the innermost residual blocks, each in topological order with its sum last. O(n log n).

    A block consists of a sum and all vertices between it and its fork, which is the immediate dominator of the sum: the
    last vertex that every path from the inputs to the sum goes through. Branch and shortcut may contain anything, but
    only the sum may be read from outside. Sums of sums with one fork are one block. Vertices that depend on no input,
    such as position biases, belong to the block if nothing else reads them. Blocks never overlap: a block that contains
    another is left out. So is a block without parameters, such as the sum inside a written-out activation.

    Args:
        dag: The graph; nested graphs are not entered.
        sums: The exact module classes that join branches.
    """
    require_graphs("residual_blocks()", dag)
    return _BlockSearch(dag, frozenset(sums)).run()


class _BlockSearch:
    def __init__(self, dag: DagModule, sums: frozenset[type[nn.Module]]) -> None:
        self.order = dag.inner_vertices
        self.sums = sums
        self.nodes = dominators(dag)
        self.position: Mapping[Vertex, int] = {vertex: i for i, vertex in enumerate(self.order)}
        self.found: dict[Vertex, tuple[InnerVertex, ...]] = {}

    def run(self) -> list[tuple[InnerVertex, ...]]:
        """Return the blocks of all sums; topological order visits inner sums first."""
        for vertex in self.order:
            fork = self._fork(vertex)
            if fork is not None and not self._is_part_of_larger_sum(vertex, fork):
                block = self._block(vertex, fork)
                if block is not None:
                    self.found[vertex] = block
        return list(self.found.values())

    def _fork(self, vertex: Vertex) -> Vertex | None:
        """Return the fork of a sum of at least two branches; None for any other vertex."""
        if not isinstance(vertex, InnerVertex) or type(vertex.module) not in self.sums:
            return None
        branches = {predecessor for predecessor in vertex.predecessors if predecessor in self.nodes}
        parent = self.nodes[vertex].parent if len(branches) > 1 else None
        return None if parent is None else parent.item

    def _is_part_of_larger_sum(self, vertex: Vertex, fork: Vertex) -> bool:
        users = {user for user, _ in vertex._uses}
        return len(users) == 1 and self._fork(next(iter(users))) is fork

    def _block(self, root: InnerVertex, fork: Vertex) -> tuple[InnerVertex, ...] | None:
        """Collect the vertices of a block backwards from its sum; None if another vertex is read from outside."""
        members: dict[InnerVertex, None] = {}
        waiting = [(-self.position[root], root)]
        seen: set[Vertex] = {root, fork}
        while waiting:
            _, vertex = heapq.heappop(waiting)
            leaks = any(user not in members for user, _ in vertex._uses)
            if vertex in self.found or (leaks and vertex is not root):
                if vertex in self.nodes:
                    return None
                continue
            members[vertex] = None
            for predecessor in vertex.predecessors:
                if predecessor not in seen and isinstance(predecessor, InnerVertex):
                    seen.add(predecessor)
                    heapq.heappush(waiting, (-self.position[predecessor], predecessor))
        block = tuple(reversed(members))
        return block if any(_has_parameters(vertex.module) for vertex in block) else None


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
