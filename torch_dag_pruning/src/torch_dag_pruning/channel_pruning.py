"""The channel pruning interface of the original torch-dag, for training loops written for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from torch_dag_core.errors import SettingsError
from torch_dag_core.graph.dag import DagModule
from torch_dag_pruning.errors import MissingModeError
from torch_dag_pruning.one_shot import OneShotChannelPruning

ONE_SHOT = "one_shot"
LEARNED_MODES = ("default", "block_snpe", "whole_block")
_LEARNED_SETTINGS = ("block_size", "entropy_loss_weight", "flops_loss_weight", "anneal_losses")
_HOLDING_BACK = {"prune_stem": True, "custom_unprunable_module_classes": False}
"""Settings that exclude layers from pruning, and the truth value with which they exclude none."""


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
    """The channel pruning interface of the original torch-dag. Its learned modes do NOT exist yet.

    Only ``pruning_mode="one_shot"`` works: channels are chosen at construction by their L2 norms, so that
    ``pruning_proportion`` of the FLOPs are kept. The prepared model can be trained with the dropped channels masked;
    `remove_channels` slices the trained weights. Every other mode, also the default, raises `MissingModeError`.

        pruning = ChannelPruning(dag, (3, 224, 224), 0.5, num_training_steps=10_000, pruning_mode="one_shot")
        pruning_model = pruning.prepare_for_pruning()
        proportion, *losses = pruning.compute_current_proportion_and_pruning_losses(global_step)
        pruned = pruning.remove_channels()

    Here ``pruning_proportion`` is the share of FLOPs that is kept, and ``prunable_proportion`` the share that can be
    removed; the rest of the library calls them ``keep_flops`` and ``removable_share``.

    Attributes:
        algorithm: The `OneShotChannelPruning` behind this interface.
        prunable_proportion: The largest share of FLOPs that can be removed.
        initial_normalized_flops: Cost of the graph in thousands of FLOPs per input pixel, for one sample.
        target_normalized_flops: The cost to reach, in the same unit.
    """

    def __init__(
        self, model: DagModule, input_shape_without_batch: Sequence[int] | None, pruning_proportion: float,
        num_training_steps: int, *, pruning_mode: str = "default", **settings: Any,
    ) -> None:  # fmt: skip
        """Choose the channels to keep.

        Args:
            model: The graph to prune; it is not changed.
            input_shape_without_batch: Shape of one sample; None uses the example inputs of the graph.
            pruning_proportion: Share of the FLOPs to keep.
            num_training_steps: A parameter of the learned modes; ignored.
            pruning_mode: ``"one_shot"``.
            **settings: ``block_size``, ``entropy_loss_weight``, ``flops_loss_weight`` and ``anneal_losses`` of the
                learned modes, which are ignored; ``prune_stem``, which must be True, and
                ``custom_unprunable_module_classes``, which must be empty, as layers cannot be excluded yet.

        Raises:
            MissingModeError: a mode or value that does not exist yet.
            SettingsError: a setting has a wrong value, or the mode is unknown.
            PlanError: the FLOPs cannot be reached (the message says which share can).
            TypeError: there is no setting of that name.
        """
        del num_training_steps
        _require_one_shot(pruning_mode)
        _check_settings(settings)
        self.algorithm = OneShotChannelPruning(model, input_shape_without_batch, pruning_proportion)
        self.prunable_proportion = self.algorithm.removable_share
        self.initial_normalized_flops = self.algorithm.initial_normalized_flops
        self.target_normalized_flops = self.algorithm.target_normalized_flops

    def prepare_for_pruning(self) -> DagModule:
        """Return a trainable copy of the graph in which the dropped channels contribute nothing."""
        return self.algorithm.prepare()

    def compute_current_proportion_and_pruning_losses(self, global_step: int) -> PruningLosses:
        """Return the share of FLOPs that is kept, and three losses, which are 0 because nothing is learned."""
        share = self.algorithm.losses(global_step).cost_share
        return PruningLosses(share, *(torch.zeros_like(share) for _ in range(3)))

    def remove_channels(self) -> DagModule:
        """Return a graph without the dropped channels, with the current weights of the prepared graph.

        Raises:
            RemovalError: an op cannot be made smaller.
            RemovalMismatchError: the result differs from the masked graph; the message names the first vertex.
        """
        return self.algorithm.finalize()


def _require_one_shot(mode: str) -> None:
    if mode in LEARNED_MODES:
        message = (
            f"pruning_mode {mode!r} learns which channels go, which does not exist yet; "
            f"pass pruning_mode={ONE_SHOT!r} to choose them at once by their L2 norms"
        )
        raise MissingModeError(message)
    if mode != ONE_SHOT:
        known = ", ".join(map(repr, (ONE_SHOT, *LEARNED_MODES)))
        message = f"pruning_mode must be one of {known}, got {mode!r}"
        raise SettingsError(message)


def _check_settings(settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        if name not in _LEARNED_SETTINGS and name not in _HOLDING_BACK:
            message = f"ChannelPruning has no setting {name!r}"
            raise TypeError(message)
        if name in _HOLDING_BACK and bool(value) is not _HOLDING_BACK[name]:
            message = f"{name}={value!r} needs layers to be held back, which does not exist yet; leave {name} out"
            raise MissingModeError(message)
