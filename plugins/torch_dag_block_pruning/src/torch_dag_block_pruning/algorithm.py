"""Block pruning: the analysis is real, the learning is a stub."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from torch import nn

from torch_dag_block_pruning.analysis import analyze_blocks
from torch_dag_block_pruning.config import BlockPruningConfig
from torch_dag_block_pruning.report import BlockReport
from torch_dag_core.algorithms.algorithm import Losses
from torch_dag_core.algorithms.compression import CompressionPlugin
from torch_dag_core.errors import StubError
from torch_dag_core.graph.dag import DagModule


class BlockPruning(CompressionPlugin):
    """Removes whole residual branches. STUB: only the constructor and `analyze` do anything yet."""

    name: ClassVar[str] = "block-pruning"
    config_type = BlockPruningConfig
    config: BlockPruningConfig

    def __init__(  # noqa: PLR0913
        self,
        model: DagModule,
        input_shape_without_batch: Sequence[int] | None,
        pruning_proportion: float,
        num_training_steps: int,
        *,
        entropy_loss_weight: float = 1.0,
        flops_loss_weight: float = 10.0,
        anneal_losses: bool = True,
        custom_unprunable_module_classes: Iterable[type[nn.Module]] = (),
        cost: str = "flops",
        reference_flops: float | None = None,
        units: Sequence[str] = ("residual",),
        shortcut: str = "any",
        select: str = "learned",
        importance: str = "recoverability",
        max_removed: int | None = None,
    ) -> None:
        """Check the settings and whether the graph can give what they ask for.

        Args:
            model: The graph to compress; it is never changed.
            input_shape_without_batch: Shape of one sample; None takes the example that the graph remembers.
            pruning_proportion: Share of the FLOPs that stays.
            num_training_steps: Steps over which the losses reach their full weight.
            entropy_loss_weight: Weight of the push towards yes or no.
            flops_loss_weight: Weight of the push towards the target.
            anneal_losses: Whether these weights grow over the steps.
            custom_unprunable_module_classes: Exact classes of modules that stay as they are.
            cost: What the target counts; only ``"flops"`` exists yet.
            reference_flops: FLOPs that ``pruning_proportion`` is a share of; those of ``model`` by default.
            units: What may be cut: ``"residual"`` is operands of sums, ``"gate"`` small factors of products.
            shortcut: ``"identity"`` cuts only where what stays is the block's own input; ``"any"`` also where it is a
                projection, a scaled input or another branch.
            select: How the blocks to remove will be chosen: ``"learned"``, ``"ilp"`` or ``"iterative"``.
            importance: What a block will be worth: ``"recoverability"``, ``"taylor"`` or ``"bi"``.
            max_removed: The most blocks that may go.

        Raises:
            SettingsError: a setting is wrong, or the target is below what can be reached (the message says what is).
            StubError: a setting asks for what does not exist yet.
        """
        super().__init__(
            model,
            input_shape_without_batch,
            pruning_proportion,
            num_training_steps,
            entropy_loss_weight=entropy_loss_weight,
            flops_loss_weight=flops_loss_weight,
            anneal_losses=anneal_losses,
            custom_unprunable_module_classes=custom_unprunable_module_classes,
            cost=cost,
            reference_flops=reference_flops,
            units=units,
            shortcut=shortcut,
            select=select,
            importance=importance,
            max_removed=max_removed,
        )

    def analyze(self) -> BlockReport:
        """Return every legal cut, what it removes, and the cuts that leave least. Mutates nothing."""
        return analyze_blocks(self.model, self.input_shape_without_batch, self.config)

    def calibrate(self, batches: Iterable[Any]) -> None:
        """Raise `StubError`: no block is scored yet."""
        del batches
        raise StubError(self.name, "calibrate", f"the {self.config.importance!r} scores of blocks")

    def prepare_for_pruning(self) -> DagModule:
        """Raise `StubError`: there are no gates yet."""
        raise StubError(self.name, "prepare_for_pruning", "a learnable gate on the edge of every candidate")

    def compute_current_proportion_and_pruning_losses(self, global_step: int) -> Losses:
        """Raise `StubError`: there are no gates to compute a soft cost of."""
        del global_step
        needed = "the differentiable cost of gated edges and the blockwise distillation at their sums"
        raise StubError(self.name, "compute_current_proportion_and_pruning_losses", needed)

    def finalize(self) -> DagModule:
        """Raise `StubError`: nothing decides yet which blocks go."""
        needed = f"the {self.config.select!r} selection of blocks and the projection onto the budget"
        raise StubError(self.name, "finalize", needed)

    def remove_blocks(self) -> DagModule:
        """Do `finalize`."""
        return self.finalize()
