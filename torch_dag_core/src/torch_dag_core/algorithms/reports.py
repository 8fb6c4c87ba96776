"""Results of analyses as data, which print as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A part of a graph that an algorithm can shrink or remove.

    Attributes:
        name: Name, unique within a report.
        kind: Kind of the part, in a word or two.
        flops: Its current FLOPs.
        removable: The FLOPs that can be removed if nothing else is changed.
    """

    name: str
    kind: str
    flops: int
    removable: int

    @property
    def detail(self) -> str:
        """Text of the last column of the table."""
        return ""


@dataclass(frozen=True)
class Skipped:
    """A part of a graph that an algorithm does not change, and the reason."""

    name: str
    flops: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class CompressionReport:
    """All candidates in a graph, and how much can be removed.

    Attributes:
        algorithm: Name of the algorithm.
        flops: Current FLOPs of the graph, for one sample.
        reachable_flops: The smallest FLOPs that the algorithm can reach.
        candidates: The candidates, in the order of the graph.
        skipped: Parts that are not candidates, and why.
    """

    algorithm: str
    flops: int
    reachable_flops: int
    candidates: Sequence[Candidate]
    skipped: Sequence[Skipped] = ()

    @property
    def removable_share(self) -> float:
        """The largest share of FLOPs that can be removed."""
        return (self.flops - self.reachable_flops) / self.flops if self.flops else 0.0

    def __str__(self) -> str:
        head = (
            f"{self.algorithm}: {len(self.candidates)} candidates, {self.flops:,} FLOPs, "
            f"at most {self.removable_share:.2%} of them can go"
        )
        rows = [
            (each.name, each.kind, f"{each.flops:,}", f"{self._share(each.removable):.2%}", each.detail)
            for each in self.candidates
        ]
        table = _table([("candidate", "kind", "FLOPs", "removable", ""), *rows]) if rows else []
        left = [f"left as it is: {each.name} ({self._share(each.flops):.2%}): {each.reason}" for each in self.skipped]
        return "\n".join([head, *table, *left])

    def _share(self, flops: int) -> float:
        return flops / self.flops if self.flops else 0.0


_NUMBERS = (2, 3)
"""Indices of the columns that are aligned to the right."""


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_cell(i, cell, widths[i]) for i, cell in enumerate(row)).rstrip() for row in rows]


def _cell(column: int, text: str, width: int) -> str:
    return text.rjust(width) if column in _NUMBERS else text.ljust(width)
