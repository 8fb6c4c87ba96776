"""A graph reduced to numbers: who reads whom and what each vertex costs, for counting what a cut leaves alive.

Vertices are numbered in topological order. A cut takes one operand away from a vertex that joins two; the join then
passes on the other operand and costs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.patterns.dominance import ROOT, TreeNode, child, common


class Cut(NamedTuple):
    """An operand taken away from a join."""

    join: int
    operand: int


@dataclass(frozen=True)
class Skeleton:
    """Names, operands and FLOPs by vertex number; ``roots`` are the vertices that are needed whatever reads them."""

    names: tuple[str, ...]
    operands: tuple[tuple[int, ...], ...]
    flops: tuple[int, ...]
    roots: frozenset[int]

    @classmethod
    def of(cls, dag: DagModule, flops: Mapping[str, int]) -> Skeleton:
        """Return the skeleton of a graph. O(n)."""
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
        """Return which vertices stay alive; cuts must leave each join one operand. O(n)."""
        removed = dict(cuts)
        live = [number in self.roots for number in range(len(self.names))]
        for number in reversed(range(len(self.names))):
            if live[number]:
                for index, operand in enumerate(self.operands[number]):
                    live[operand] |= removed.get(number) != index
        return live

    def remaining(self, cuts: Iterable[Cut] = ()) -> int:
        """Return the FLOPs of what stays alive; a join that passes on its other operand costs nothing. O(n)."""
        cuts = tuple(cuts)
        joins = {cut.join for cut in cuts}
        return sum(self.flops[number] for number, live in enumerate(self.alive(cuts)) if live and number not in joins)


class Cones:
    """What dies when one edge is cut: the vertices from which every way to a root goes through it. O(n log n)."""

    def __init__(self, skeleton: Skeleton, edges: Iterable[Cut]) -> None:
        self._skeleton = skeleton
        self._edges = dict.fromkeys(edges)
        self._parents = self._post_dominators()
        self._children: dict[int | Cut | None, list[int]] = {}
        for number, parent in enumerate(self._parents):
            self._children.setdefault(parent, []).append(number)
        self.flops = self._totals()

    def members(self, edge: Cut) -> list[int]:
        """Return the vertices that die with an edge, in topological order. O(size)."""
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
        """Return what immediately post-dominates each vertex: a vertex, an edge in question, or a root."""
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
        """Add up FLOPs from the inputs on; what an item post-dominates comes before it."""
        sums: Counter[int | Cut | None] = Counter()
        for number, parent in enumerate(self._parents):
            own = self._skeleton.flops[number] + sum(sums[edge] for edge in self._edges_into(number))
            sums[number] += own
            sums[parent] += sums[number]
        return {edge: sums[edge] for edge in self._edges}


class DeepestCut:
    """The search for cuts that leave as little as possible.

    At each join, first ones first, the side goes that takes more with it, given the cuts made before. Where both sides
    of some joins may go, each of these choices is then turned round as long as that leaves less.
    """

    def __init__(self, skeleton: Skeleton) -> None:
        self._skeleton = skeleton
        self._flops = list(skeleton.flops)
        self._operands: list[Sequence[int]] = list(skeleton.operands)
        self._readers = Counter(skeleton.roots)
        for number, live in enumerate(skeleton.alive()):
            self._readers.update(skeleton.operands[number] if live else ())

    def run(self, cuts: Iterable[Cut]) -> tuple[Cut, ...]:
        """Return the cuts to make, without those inside what other cuts remove."""
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
        """Count how many readers each vertex loses with a cut; those that lose all pass it on."""
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
        """Exchange single cuts until none of them leaves less. O(n) a try."""
        least = self._skeleton.remaining(made.values())
        tried_in_vain = 0
        while tried_in_vain < len(choices):
            for cut in choices:
                left = self._skeleton.remaining({**made, cut.join: cut}.values())
                tried_in_vain += 1
                if left < least:
                    least, tried_in_vain = left, 0
                    made[cut.join] = cut
