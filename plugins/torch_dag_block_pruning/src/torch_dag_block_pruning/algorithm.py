"""Block pruning: the analysis works, learning is a stub."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from torch_dag_block_pruning.analysis import analyze_blocks
from torch_dag_block_pruning.config import BlockPruningConfig
from torch_dag_block_pruning.report import BlockReport
from torch_dag_core.algorithms.algorithm import Losses
from torch_dag_core.algorithms.compression import CompressionAlgorithm
from torch_dag_core.errors import StubError
from torch_dag_core.graph.dag import DagModule


class BlockPruning(CompressionAlgorithm):
    """Removes whole residual branches.

    STUB: only the constructor, which takes the settings of `BlockPruningConfig`, and `analyze` work yet.

    Raises:
        SettingsError: a setting is wrong, or the target cannot be reached (the message says which can).
        StubError: a setting asks for something that does not exist yet.
    """

    name: ClassVar[str] = "block-pruning"
    config_type = BlockPruningConfig
    config: BlockPruningConfig

    def analyze(self) -> BlockReport:
        """Return every allowed cut with what it removes, and the cuts that leave the fewest FLOPs; changes nothing."""
        return analyze_blocks(self.model, self.input_shape, self.config)

    def calibrate(self, batches: Iterable[Any]) -> None:
        """Raise `StubError`: blocks are not scored yet."""
        del batches
        raise StubError(self.name, "calibrate", f"the {self.config.importance!r} scores of blocks")

    def prepare(self) -> DagModule:
        """Raise `StubError`: there are no gates yet."""
        raise StubError(self.name, "prepare", "a learnable gate on the edge of every candidate")

    def losses(self, global_step: int) -> Losses:
        """Raise `StubError`: there are no gates yet whose cost could be computed."""
        del global_step
        needed = "the differentiable cost of gated edges and the blockwise distillation at their sums"
        raise StubError(self.name, "losses", needed)

    def finalize(self) -> DagModule:
        """Raise `StubError`: blocks are not selected yet."""
        needed = f"the {self.config.select!r} selection of blocks and the projection onto the budget"
        raise StubError(self.name, "finalize", needed)

    def remove_blocks(self) -> DagModule:
        """Return a plain graph without the removed blocks; the same as `finalize`."""
        return self.finalize()
