"""Low-rank compression: the analysis is real, the learning is a stub."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from torch import nn

from torch_dag_core.algorithms.algorithm import Losses
from torch_dag_core.algorithms.compression import CompressionPlugin
from torch_dag_core.errors import StubError
from torch_dag_core.graph.dag import DagModule
from torch_dag_llrc.analysis import analyze_ranks
from torch_dag_llrc.config import LowRankConfig
from torch_dag_llrc.report import LowRankReport


class LowRankCompression(CompressionPlugin):
    """Replaces layers by chains of thinner ones whose ranks are learned.

    STUB: only the constructor and `analyze` do anything yet.
    """

    name: ClassVar[str] = "low-rank"
    config_type = LowRankConfig
    config: LowRankConfig

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
        scheme: str = "auto",
        gate: str = "ordered",
        rank_multiple: int = 8,
        share_siblings: bool = False,
        train: str = "joint",
        prune_stem: bool = True,
        prune_head: bool = True,
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
            scheme: How convolutions are factored: ``"in"`` (1x1 first), ``"out"`` (1x1 last), ``"spatial"`` (a column,
                then a row), ``"tucker2"`` (1x1 on both sides), or ``"auto"``, the cheapest.
            gate: ``"ordered"`` will learn one rank a layer, ``"independent"`` one gate a component.
            rank_multiple: Ranks are multiples of this.
            share_siblings: Whether linear layers that read the same value share their first factor.
            train: What will be trained: ``"local"``, ``"joint"`` or ``"gates"``.
            prune_stem: Whether layers before which there is no other may be factored.
            prune_head: Whether layers after which there is no other may be factored.

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
            scheme=scheme,
            gate=gate,
            rank_multiple=rank_multiple,
            share_siblings=share_siblings,
            train=train,
            prune_stem=prune_stem,
            prune_head=prune_head,
        )

    def analyze(self) -> LowRankReport:
        """Return every layer that can be factored and what it costs at every rank. Mutates nothing."""
        return analyze_ranks(self.model, self.input_shape_without_batch, self.config)

    def calibrate(self, batches: Iterable[Any]) -> None:
        """Raise `StubError`: no statistics of layer inputs are taken yet."""
        del batches
        raise StubError(self.name, "calibrate", "means and covariances of what each layer reads")

    def prepare_for_pruning(self) -> DagModule:
        """Raise `StubError`: no layer is factored yet."""
        needed = f"the whitened factors of every layer and the {self.config.gate!r} gates between them"
        raise StubError(self.name, "prepare_for_pruning", needed)

    def compute_current_proportion_and_pruning_losses(self, global_step: int) -> Losses:
        """Raise `StubError`: there are no gates to compute a soft rank of."""
        del global_step
        needed = "the soft ranks of the gates and the noise-to-signal ratios of factored layers"
        raise StubError(self.name, "compute_current_proportion_and_pruning_losses", needed)

    def finalize(self) -> DagModule:
        """Raise `StubError`: no ranks are learned yet."""
        needed = (
            f"ranks rounded to multiples of {self.config.rank_multiple} under the budget, and the factors cut to them"
        )
        raise StubError(self.name, "finalize", needed)

    def remove_ranks(self) -> DagModule:
        """Do `finalize`."""
        return self.finalize()
