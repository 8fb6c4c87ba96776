"""The channel pruning interface of the original torch-dag, for training loops written for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torch_dag_core.errors import SettingsError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.entry_checks import require_graphs
from torch_dag_pruning.learning.learned import LearnedChannelPruning
from torch_dag_pruning.one_shot import OneShotChannelPruning
from torch_dag_pruning.plan.selectors import Selector

ONE_SHOT = "one_shot"
LEARNED_MODES = ("default", "block_snpe", "whole_block")
_NAMES = {
    "block_size": "block_size", "entropy_loss_weight": "entropy_loss_weight", "flops_loss_weight": "flops_loss_weight",
    "anneal_losses": "anneal_losses", "prune_stem": "prune_stem", "custom_unprunable_module_classes": "ignore_classes",
}  # fmt: skip
"""The settings of the original torch-dag, and what they are called in `LearnedChannelConfig`."""


class PruningLosses(NamedTuple):
    """The result of one training step of `ChannelPruning`, in the order in which training loops unpack it.

    Attributes:
        proportion: Current share of the FLOPs of the model.
        flops_loss: Grows with the FLOPs above the target.
        entropy_loss: Grows with the uncertainty of the decisions.
        bkd_loss: Grows with the difference between masked and original values (blockwise knowledge distillation).
    """

    proportion: Tensor
    flops_loss: Tensor
    entropy_loss: Tensor
    bkd_loss: Tensor


class ChannelPruning:
    """The channel pruning interface of the original torch-dag, over `LearnedChannelPruning`.

        pruning = ChannelPruning(dag, (3, 224, 224), 0.5, num_training_steps=10_000)
        pruning_model = pruning.prepare_for_pruning()
        optimizer = torch.optim.Adam(pruning_model.parameters(), 1e-4)
        for global_step, (images, labels) in enumerate(loader):
            loss = cross_entropy(pruning_model(images), labels)
            proportion, *losses = pruning.compute_current_proportion_and_pruning_losses(global_step)
            optimizer.zero_grad()
            sum(losses, loss).backward()
            optimizer.step()
        pruned = pruning.remove_channels()

    Each channel has a logit, which is a parameter of the prepared model (``channel_gates.logits``) and is trained by
    the same optimizer as the weights. ``"default"`` decides about each channel, ``"block_snpe"`` about blocks of
    ``block_size`` channels, and ``"whole_block"`` about all channels of an orbit together. ``"one_shot"`` chooses
    channels at construction by their L2 norms; the three losses are 0 then.

    The target holds after any number of steps: `remove_channels` keeps the channels of the largest logits, as many as
    it allows. In evaluation mode the prepared model computes what `remove_channels` would leave at that moment.

    Here ``pruning_proportion`` is the share of FLOPs that is kept, and ``prunable_proportion`` the share that can be
    removed; the rest of the library calls them ``keep_flops`` and ``removable_share``.

    Attributes:
        algorithm: The algorithm behind this interface.
        prunable_proportion: The largest share of FLOPs that can be removed.
        initial_normalized_flops: Cost of the graph in thousands of FLOPs per input pixel, for one sample.
        target_normalized_flops: The cost to reach, in the same unit.
    """

    algorithm: LearnedChannelPruning | OneShotChannelPruning

    def __init__(
        self, model: DagModule, input_shape_without_batch: Sequence[int] | None, pruning_proportion: float,
        num_training_steps: int, *, pruning_mode: str = "default", seed: int = 0, **settings: Any,
    ) -> None:  # fmt: skip
        """Analyse the graph, and check that the target can be reached.

        Args:
            model: The graph to prune; it is not changed.
            input_shape_without_batch: Shape of one sample; None uses the example inputs of the graph.
            pruning_proportion: Share of the FLOPs to keep.
            num_training_steps: Steps over which the losses reach 0.9 of their weights; from this step on, the choice of
                channels stands.
            pruning_mode: ``"default"``, ``"block_snpe"``, ``"whole_block"`` or ``"one_shot"``.
            seed: Of the random masks.
            **settings: ``block_size`` (8), ``entropy_loss_weight`` (1.0), ``flops_loss_weight`` (10.0) and
                ``anneal_losses`` (True); ``prune_stem`` (True), whether layers that read the inputs may be pruned; and
                ``custom_unprunable_module_classes``, classes of modules that are not pruned. The mode ``"one_shot"``
                ignores the first four.

        Raises:
            SettingsError: a setting has a wrong value, the mode is unknown, or the FLOPs cannot be reached (the message
                says which share can).
            PlanError: the same of FLOPs in the mode ``"one_shot"``; or the graph has no layer of an excluded class.
            TypeError: there is no setting of that name.
        """
        require_graphs("ChannelPruning", model)
        _check(pruning_mode, settings)
        place = (model, input_shape_without_batch, pruning_proportion)
        if pruning_mode == ONE_SHOT:
            self.algorithm = OneShotChannelPruning(*place, ignore=_ignored(**settings))
        else:
            given = {_NAMES[name]: value for name, value in settings.items()}
            self.algorithm = LearnedChannelPruning(
                *place, num_training_steps, mode=pruning_mode, seed=seed, own_optimizer=False, **given
            )
        self.prunable_proportion = self.algorithm.removable_share
        self.initial_normalized_flops = self.algorithm.initial_normalized_flops
        self.target_normalized_flops = self.algorithm.target_normalized_flops

    def prepare_for_pruning(self) -> DagModule:
        """Return a trainable copy of the graph with masks, on the same device and of the same dtype.

        The logits are in its state dict. Because they are in no vertex, it cannot be saved as a graph.
        """
        return self.algorithm.prepare()

    def compute_current_proportion_and_pruning_losses(self, global_step: int) -> PruningLosses:
        """Return the expected share of FLOPs and three losses, for the latest call of the model in training."""
        losses = self.algorithm.losses(global_step)
        share = losses.cost_share
        return PruningLosses(
            share, *(losses.terms.get(name, torch.zeros_like(share)) for name in ("flops", "entropy", "blocks"))
        )

    def remove_channels(self) -> DagModule:
        """Return a graph without the dropped channels, with the current weights of the prepared graph.

        Raises:
            RemovalError: an op cannot be made smaller.
            RemovalMismatchError: the result differs from the masked graph; the message names the first vertex.
        """
        return self.algorithm.finalize()


def _check(mode: str, settings: Mapping[str, Any]) -> None:
    if mode not in (ONE_SHOT, *LEARNED_MODES):
        known = ", ".join(map(repr, (ONE_SHOT, *LEARNED_MODES)))
        message = f"pruning_mode must be one of {known}, got {mode!r}"
        raise SettingsError(message)
    for name in settings:
        if name not in _NAMES:
            message = f"ChannelPruning has no setting {name!r}"
            raise TypeError(message)


def _ignored(
    *, prune_stem: bool = True, custom_unprunable_module_classes: Sequence[type[nn.Module]] = (), **_: Any
) -> tuple[Selector, ...]:
    """Return the layers that are excluded, as the setting ``ignore`` of one-shot pruning names them."""
    return *(() if prune_stem else ("@stem",)), *custom_unprunable_module_classes
