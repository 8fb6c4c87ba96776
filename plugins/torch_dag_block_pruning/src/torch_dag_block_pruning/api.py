"""Every public name of the package, which imports this module when the first of them is used."""

from torch_dag_block_pruning.algorithm import BlockPruning
from torch_dag_block_pruning.analysis import analyze_blocks
from torch_dag_block_pruning.config import BlockPruningConfig
from torch_dag_block_pruning.report import BlockCandidate, BlockReport

__all__ = ["BlockCandidate", "BlockPruning", "BlockPruningConfig", "BlockReport", "analyze_blocks"]
