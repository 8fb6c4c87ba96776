"""A graph reduced to edges and costs, to compute what remains after cuts.

Vertices are numbered in topological order. A cut removes one operand of a vertex with two operands, the join; the join
then passes on the other operand and costs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.patterns.dominance import ROOT, TreeNode, child, common


class Cut(NamedTuple):
    """Removal of operand number ``operand`` of the vertex with number ``join``."""

    join: int
    operand: int


@dataclass(frozen=True)
class Skeleton:
    """Names, operands and FLOPs of vertices, by vertex number.

    Attributes:
        names: Names of the vertices.
        operands: Numbers of the operands of each vertex.
        flops: FLOPs of each vertex.
        roots: Vertices that are needed even if no vertex reads them: outputs, and vertices with side effects.
    """

    names: tuple[str, ...]
    operands: tuple[tuple[int, ...], ...]
    flops: tuple[int, ...]
    roots: frozenset[int]

    @classmethod
    def of(cls, dag: DagModule, flops: Mapping[str, int]) -> Skeleton:
        """Return the skeleton of a graph, with the FLOPs of its vertices by name. O(n)."""
        vertices = dag.vertices
        number = {vertex: i for i, vertex in enumerate(vertices)}
        roots = {number[vertex] for output in dag.output_vertices for vertex in output.predecessors}
        roots |= {number[vertex] for vertex in dag.inner_vertices if vertex.has_side_effect}
        return cls(
            tuple(vertex.name for vertex in vertices),
            tuple(tuple(number[operand] for operand in vertex.predecessors) for vertex in vertices),
            tuple(flops.get(vertex.name, 0) for vertex in vertices),
            frozenset(roots),
        )

    def alive(self, cuts: Iterable[Cut] = ()) -> list[bool]:
        """Return for each vertex whether it is still needed after the cuts, at most one per join. O(n)."""
        removed = dict(cuts)
        live = [number in self.roots for number in range(len(self.names))]
        for number in reversed(range(len(self.names))):
            if live[number]:
                for index, operand in enumerate(self.operands[number]):
                    live[operand] |= removed.get(number) != index
        return live

    def remaining(self, cuts: Iterable[Cut] = ()) -> int:
        """Return the FLOPs of the vertices that are needed after the cuts; cut joins cost nothing. O(n)."""
        cuts = tuple(cuts)
        joins = {cut.join for cut in cuts}
        return sum(self.flops[number] for number, live in enumerate(self.alive(cuts)) if live and number not in joins)


class Cones:
    """The vertices that become unused when one edge is cut: all their paths to a root contain it. O(n log n).

    Attributes:
        flops: The FLOPs of these vertices for each edge.
    """

    def __init__(self, skeleton: Skeleton, edges: Iterable[Cut]) -> None:
        self._skeleton = skeleton
        self._edges = dict.fromkeys(edges)
        self._parents = self._post_dominators()
        self._children: dict[int | Cut | None, list[int]] = {}
        for number, parent in enumerate(self._parents):
            self._children.setdefault(parent, []).append(number)
        self.flops = self._totals()

    def members(self, edge: Cut) -> list[int]:
        """Return the vertices that become unused when ``edge`` is cut, in topological order. O(size of the result)."""
        found: list[int] = []
        stack = list(self._children.get(edge, ()))
        while stack:
            number = stack.pop()
            found.append(number)
            stack.extend(self._children.get(number, ()))
            for inner in self._edges_into(number):
                stack.extend(self._children.get(inner, ()))
        return sorted(found)

    def _edges_into(self, number: int) -> list[Cut]:
        operands = range(len(self._skeleton.operands[number]))
        return [edge for index in operands if (edge := Cut(number, index)) in self._edges]

    def _post_dominators(self) -> list[int | Cut | None]:
        """Return the immediate post-dominator of each vertex: a vertex, one of the edges, or None for the exit."""
        exits: list[list[TreeNode]] = [
            [ROOT] if number in self._skeleton.roots else [] for number in range(len(self._skeleton.names))
        ]
        parents: list[int | Cut | None] = [None] * len(exits)
        for number in reversed(range(len(exits))):
            if not exits[number]:
                continue
            above = common(exits[number])
            parents[number] = above.item
            place = child(above, number)
            for index, operand in enumerate(self._skeleton.operands[number]):
                edge = Cut(number, index)
                exits[operand].append(child(place, edge) if edge in self._edges else place)
        return parents

    def _totals(self) -> dict[Cut, int]:
        """Return the FLOPs post-dominated by each edge, summed from the inputs to the outputs."""
        sums: Counter[int | Cut | None] = Counter()
        for number, parent in enumerate(self._parents):
            own = self._skeleton.flops[number] + sum(sums[edge] for edge in self._edges_into(number))
            sums[number] += own
            sums[parent] += sums[number]
        return {edge: sums[edge] for edge in self._edges}


class DeepestCut:
    """A greedy search, with local improvement, for the cuts that leave the fewest FLOPs.

    At each join in topological order, the operand is cut that saves more, given the earlier cuts. Then, for joins at
    which either operand can be cut, the choice is reversed as long as that saves FLOPs.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        self._skeleton = skeleton
        self._flops = list(skeleton.flops)
        self._operands: list[Sequence[int]] = list(skeleton.operands)
        self._readers = Counter(skeleton.roots)
        for number, live in enumerate(skeleton.alive()):
            self._readers.update(skeleton.operands[number] if live else ())

    def run(self, cuts: Iterable[Cut]) -> tuple[Cut, ...]:
        """Return the cuts to make, without those at joins that other cuts remove."""
        by_join: dict[int, list[Cut]] = {}
        for cut in sorted(cuts):
            if self._readers[cut.join]:
                by_join.setdefault(cut.join, []).append(cut)
        made = {join: self._cut_best(options) for join, options in by_join.items()}
        self._turn_round(made, [cut for options in by_join.values() if len(options) > 1 for cut in options])
        live = self._skeleton.alive(made.values())
        return tuple(cut for cut in made.values() if live[cut.join])

    def _cut_best(self, options: Sequence[Cut]) -> Cut:
        drops = {cut: self._readers_lost(cut) for cut in options}
        best = max(options, key=lambda cut: self._flops_lost(drops[cut]))
        self._readers.subtract(drops[best])
        self._operands[best.join] = [self._skeleton.operands[best.join][1 - best.operand]]
        self._flops[best.join] = 0
        return best

    def _readers_lost(self, cut: Cut) -> Counter[int]:
        """Return how many readers each vertex loses with a cut; a vertex without readers stops reading its operands."""
        lost: Counter[int] = Counter()
        stack = [self._skeleton.operands[cut.join][cut.operand]]
        while stack:
            number = stack.pop()
            lost[number] += 1
            if lost[number] == self._readers[number]:
                stack.extend(self._operands[number])
        return lost

    def _flops_lost(self, lost: Counter[int]) -> int:
        return sum(self._flops[number] for number, count in lost.items() if count == self._readers[number])

    def _turn_round(self, made: dict[int, Cut], choices: Sequence[Cut]) -> None:
        """Reverse single choices until none of them saves FLOPs. O(n) for each try."""
        least = self._skeleton.remaining(made.values())
        tried_in_vain = 0
        while tried_in_vain < len(choices):
            for cut in choices:
                left = self._skeleton.remaining({**made, cut.join: cut}.values())
                tried_in_vain += 1
                if left < least:
                    least, tried_in_vain = left, 0
                    made[cut.join] = cut
