"""The report of block pruning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from torch_dag_block_pruning.skeleton import Cut, Skeleton
from torch_dag_core.algorithms.reports import Candidate, CompressionReport
from torch_dag_core.errors import SettingsError


@dataclass(frozen=True, kw_only=True)
class BlockCandidate(Candidate):
    """One operand of a join (a sum or product) that can be removed, with the vertices that only this operand needs.

    Attributes:
        join: Name of the join, which passes on its other operand after the cut.
        operand: Index of the removed operand.
        source: Name of the vertex that computes the operand.
        vertices: Names of the vertices that become unused, in topological order; empty if others need all of them.
    """

    join: str
    operand: int
    source: str
    vertices: tuple[str, ...]

    @property
    def detail(self) -> str:
        """The cut edge, and the number of vertices that become unused."""
        return f"{self.source} -> {self.join}, {len(self.vertices)} vertices"


@dataclass(frozen=True, kw_only=True)
class BlockReport(CompressionReport):
    """All allowed cuts of a graph.

    Attributes:
        candidates: The cuts, in topological order of their joins.
        deepest: Names of the cuts that together reach ``reachable_flops``.
        skeleton: The graph as numbers, for computing costs.
    """

    candidates: tuple[BlockCandidate, ...]
    deepest: tuple[str, ...]
    skeleton: Skeleton = field(repr=False, compare=False)

    def is_legal(self, names: Collection[str]) -> bool:
        """Return whether all these cuts can be made together: each join keeps an operand.

        Raises:
            SettingsError: there is no candidate of one of the names.
        """
        joins = Counter(cut.join for cut in self._cuts(names))
        return all(count == 1 for count in joins.values())

    def remaining_flops(self, names: Collection[str]) -> int:
        """Return the FLOPs that remain after these cuts. O(n).

        Raises:
            SettingsError: there is no candidate of one of the names, or a join would keep no operand.
        """
        if not self.is_legal(names):
            message = f"the cuts {', '.join(sorted(names))} leave a join without operands"
            raise SettingsError(message)
        return self.skeleton.remaining(self._cuts(names))

    def _cuts(self, names: Collection[str]) -> list[Cut]:
        known = {each.name: each for each in self.candidates}
        number = {name: i for i, name in enumerate(self.skeleton.names)}
        unknown = [name for name in names if name not in known]
        if unknown:
            message = f"there is no candidate {unknown[0]!r}; [each.name for each in report.candidates] lists them"
            raise SettingsError(message)
        return [Cut(number[known[name].join], known[name].operand) for name in dict.fromkeys(names)]
