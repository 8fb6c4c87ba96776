"""What an algorithm found in a graph, as data that prints as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One thing that an algorithm could shrink or remove.

    Attributes:
        name: Unique within a report.
        kind: What sort of thing it is, in one word.
        flops: What it costs now.
        removable: What can go of that, if nothing else is changed.
    """

    name: str
    kind: str
    flops: int
    removable: int

    @property
    def detail(self) -> str:
        """What the report's table says of it beyond its cost."""
        return ""


@dataclass(frozen=True)
class Skipped:
    """Something that an algorithm leaves as it is, and why."""

    name: str
    flops: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class CompressionReport:
    """All candidates in a graph and the bound on what can be removed.

    Attributes:
        algorithm: Name of the algorithm.
        flops: What one call on one sample costs now.
        reachable_flops: The least that can be reached.
        candidates: In the order of the graph.
        skipped: What looked like a candidate and is none.
    """

    algorithm: str
    flops: int
    reachable_flops: int
    candidates: Sequence[Candidate]
    skipped: Sequence[Skipped] = ()

    @property
    def removable_share(self) -> float:
        """The share of FLOPs that can go at most."""
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
"""Columns that are aligned to the right."""


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_cell(i, cell, widths[i]) for i, cell in enumerate(row)).rstrip() for row in rows]


def _cell(column: int, text: str, width: int) -> str:
    return text.rjust(width) if column in _NUMBERS else text.ljust(width)
