"""Removal of whole residual branches. STUB: settings and analysis are real, every other step raises `StubError`."""

from torch_dag_block_pruning.algorithm import BlockPruning
from torch_dag_block_pruning.analysis import analyze_blocks
from torch_dag_block_pruning.config import BlockPruningConfig
from torch_dag_block_pruning.report import BlockCandidate, BlockReport

__all__ = ["BlockCandidate", "BlockPruning", "BlockPruningConfig", "BlockReport", "analyze_blocks"]
