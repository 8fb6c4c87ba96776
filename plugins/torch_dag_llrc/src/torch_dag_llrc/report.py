"""The report of low-rank compression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch_dag_core.algorithms.reports import Candidate, CompressionReport
from torch_dag_core.errors import SettingsError
from torch_dag_llrc.schemes import CostTable


@dataclass(frozen=True, kw_only=True)
class LayerCandidate(Candidate):
    """One layer that can be factored, or several that share their first factor.

    Attributes:
        layers: Names of the vertices; several are linear layers that read the same value.
        tables: The cost of the layer at every rank, for each scheme that can save FLOPs.
        least_rank: The smallest rank that the settings allow, by scheme.
    """

    layers: tuple[str, ...]
    tables: tuple[CostTable, ...]
    least_rank: Mapping[str, int]

    @property
    def best(self) -> CostTable:
        """The table of the scheme that costs least at its smallest rank."""
        return min(self.tables, key=lambda table: table.flops(self.least_rank[table.scheme]))

    @property
    def detail(self) -> str:
        """The ranks that save FLOPs, by scheme."""
        return ", ".join(f"{table.scheme} {self.least_rank[table.scheme]}..{table.break_even}" for table in self.tables)

    def cost(self, rank: int, scheme: str | None = None) -> int:
        """Return the FLOPs at a rank, in the given or the cheapest scheme; at most those of the unfactored layer.

        Raises:
            SettingsError: the layer does not have this scheme or rank.
        """
        chosen = [table for table in self.tables if scheme in (None, table.scheme) and 1 <= rank <= table.max_rank]
        if not chosen:
            known = ", ".join(f"{table.scheme} 1..{table.max_rank}" for table in self.tables)
            message = f"{self.name!r} has no rank {rank} of scheme {scheme!r}; it has {known}"
            raise SettingsError(message)
        return min(self.flops, *(table.flops(rank) for table in chosen))


@dataclass(frozen=True, kw_only=True)
class LowRankReport(CompressionReport):
    """All layers that can be factored, with their cost at every rank."""

    candidates: tuple[LayerCandidate, ...]

    def flops_at(self, ranks: Mapping[str, int]) -> int:
        """Return the FLOPs of the graph with the given rank of each candidate, in its cheapest scheme.

        Candidates that are not named are not factored.

        Raises:
            SettingsError: there is no such candidate or rank.
        """
        known = {each.name: each for each in self.candidates}
        unknown = [name for name in ranks if name not in known]
        if unknown:
            message = f"there is no candidate {unknown[0]!r}; [each.name for each in report.candidates] lists them"
            raise SettingsError(message)
        return self.flops - sum(known[name].flops - known[name].cost(rank) for name, rank in ranks.items())
