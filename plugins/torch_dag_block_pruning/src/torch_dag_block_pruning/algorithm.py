"""Block pruning: the analysis is real, the learning is a stub."""

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

    STUB: only the constructor, which takes the settings of `BlockPruningConfig`, and `analyze` do anything yet.

    Raises:
        SettingsError: a setting is wrong, or the target is below what can be reached (the message says what is).
        StubError: a setting asks for what does not exist yet.
    """

    name: ClassVar[str] = "block-pruning"
    config_type = BlockPruningConfig
    config: BlockPruningConfig

    def analyze(self) -> BlockReport:
        """Return every legal cut, what it removes, and the cuts that leave least. Mutates nothing."""
        return analyze_blocks(self.model, self.input_shape, self.config)

    def calibrate(self, batches: Iterable[Any]) -> None:
        """Raise `StubError`: no block is scored yet."""
        del batches
        raise StubError(self.name, "calibrate", f"the {self.config.importance!r} scores of blocks")

    def prepare(self) -> DagModule:
        """Raise `StubError`: there are no gates yet."""
        raise StubError(self.name, "prepare", "a learnable gate on the edge of every candidate")

    def losses(self, global_step: int) -> Losses:
        """Raise `StubError`: there are no gates to compute a soft cost of."""
        del global_step
        needed = "the differentiable cost of gated edges and the blockwise distillation at their sums"
        raise StubError(self.name, "losses", needed)

    def finalize(self) -> DagModule:
        """Raise `StubError`: nothing decides yet which blocks go."""
        needed = f"the {self.config.select!r} selection of blocks and the projection onto the budget"
        raise StubError(self.name, "finalize", needed)

    def remove_blocks(self) -> DagModule:
        """Return a plain graph without the blocks that go; the same as `finalize`."""
        return self.finalize()
