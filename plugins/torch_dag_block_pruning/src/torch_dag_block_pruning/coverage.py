"""What block pruning adds to the coverage command."""

from __future__ import annotations

from torch_dag_block_pruning.analysis import analyze_blocks
from torch_dag_core.cli.coverage.check import CoverageCheck, Subject


def blocks(subject: Subject) -> dict[str, float]:
    """Return the share of FLOPs that can be removed in whole blocks."""
    return {"removable": analyze_blocks(subject.dag).removable_share}


CHECK = CoverageCheck("blocks", blocks)
