"""Channel pruning under the names of the first torch-dag, for training loops that were written for it."""

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
"""Settings that hold layers back, and whether their values must be true or empty so that none is."""


class PruningLosses(NamedTuple):
    """What `ChannelPruning` measures at one training step, in the order in which training loops unpack it.

    Attributes:
        proportion: Share of the FLOPs that the model has as it now stands.
        flops_loss: Grows with the FLOPs above the target.
        entropy_loss: Grows with decisions that are neither yes nor no.
        bkd_loss: Grows with how far masked values are from the originals (blockwise knowledge distillation).
    """

    proportion: Tensor
    flops_loss: Tensor
    entropy_loss: Tensor
    bkd_loss: Tensor


class ChannelPruning:
    """Channel pruning under the names of the first torch-dag. Its learned modes do NOT exist yet.

    Only ``pruning_mode="one_shot"`` works: channels are chosen at construction by their L2 norms, within
    ``pruning_proportion`` of the FLOPs. The prepared model may be trained with the chosen channels masked, and
    `remove_channels` cuts the trained weights. Every other mode, the default too, raises `MissingModeError`.

        pruning = ChannelPruning(dag, (3, 224, 224), 0.5, num_training_steps=10_000, pruning_mode="one_shot")
        pruning_model = pruning.prepare_for_pruning()
        proportion, *losses = pruning.compute_current_proportion_and_pruning_losses(global_step)
        pruned = pruning.remove_channels()

    Here ``pruning_proportion`` is the share of FLOPs that stays, and ``prunable_proportion`` the share that can go;
    the rest of the library calls them ``keep_flops`` and ``removable_share``.

    Attributes:
        algorithm: What does the work.
        prunable_proportion: The share of FLOPs that can go at most.
        initial_normalized_flops: Cost of the graph: FLOPs of one sample by input pixel, in thousands.
        target_normalized_flops: What is asked for, in the same unit.
    """

    def __init__(
        self, model: DagModule, input_shape_without_batch: Sequence[int] | None, pruning_proportion: float,
        num_training_steps: int, *, pruning_mode: str = "default", **settings: Any,
    ) -> None:  # fmt: skip
        """Choose what stays.

        Args:
            model: The graph to prune, which is not changed.
            input_shape_without_batch: Shape of one sample; None takes the example that the graph remembers.
            pruning_proportion: Share of the FLOPs that stays.
            num_training_steps: Of the learned modes; one-shot pruning does not look at it.
            pruning_mode: ``"one_shot"``.
            **settings: ``block_size``, ``entropy_loss_weight``, ``flops_loss_weight`` and ``anneal_losses`` of the
                learned modes, which one-shot pruning does not look at; ``prune_stem``, which must be True, and
                ``custom_unprunable_module_classes``, which must be empty, as nothing can be held back yet.

        Raises:
            MissingModeError: a mode or a value that does not exist yet.
            SettingsError: a setting is wrong, or there is no such mode.
            PlanError: the FLOPs cannot be reached (the message says how far down they go).
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
        """Return a trainable copy of the graph in which the channels that go contribute nothing."""
        return self.algorithm.prepare()

    def compute_current_proportion_and_pruning_losses(self, global_step: int) -> PruningLosses:
        """Return the share of FLOPs that stays, and three losses, which are 0 where nothing is learned."""
        share = self.algorithm.losses(global_step).cost_share
        return PruningLosses(share, *(torch.zeros_like(share) for _ in range(3)))

    def remove_channels(self) -> DagModule:
        """Return a plain graph without the channels that go, with the weights that the prepared one has now.

        Raises:
            RemovalError: an op cannot be made smaller.
            RemovalMismatchError: the result differs from the masked graph; names the first vertex.
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
