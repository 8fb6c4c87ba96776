"""The same networks pruned by Torch-Pruning (`pip install torch-pruning==1.6.1`), by four of its criteria."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch_pruning as tp
from torch import nn
from torch.nn import functional as F

from .networks import Attention

CRITERIA: dict[str, Callable[[], Any]] = {
    "magnitude": lambda: tp.importance.GroupMagnitudeImportance(p=2),
    "taylor": tp.importance.GroupTaylorImportance,
    "fpgm": tp.importance.FPGMImportance,
    "hessian": tp.importance.GroupHessianImportance,
}


def pruned(
    criterion: str, network: nn.Module, images: torch.Tensor, labels: torch.Tensor, fits: Callable[[nn.Module], bool],
    head: str = "head",
) -> nn.Module:  # fmt: skip
    """Return a copy, pruned as little as `fits` asks for; every group of layers loses the same share of its channels.

    The share is found by bisection with the magnitude criterion, since how many channels stay does not depend on which.
    """
    low, high = 0.0, 0.95
    for _ in range(9):
        middle = (low + high) / 2
        fitting = fits(_at(middle, "magnitude", network, images, labels, head))
        low, high = (low, middle) if fitting else (middle, high)
    return _at(high, criterion, network, images, labels, head)


def _at(
    share: float, criterion: str, network: nn.Module, images: torch.Tensor, labels: torch.Tensor, head: str
) -> nn.Module:
    network = copy.deepcopy(network).eval()
    importance = CRITERIA[criterion]()
    heads = {module.qkv: module.heads for module in network.modules() if isinstance(module, Attention)}
    pruner = tp.pruner.BasePruner(
        network, images[:2], importance, pruning_ratio=share, ignored_layers=[network.get_submodule(head)],
        num_heads=heads, prune_head_dims=True,
        unwrapped_parameters=[(value, 2) for name, value in network.named_parameters() if name == "position"],
    )  # fmt: skip
    if criterion == "taylor":
        F.cross_entropy(network(images), labels).backward()
    if criterion == "hessian":
        _accumulate_squares(network, importance, images, labels)
    pruner.step()
    network.zero_grad(set_to_none=True)
    return network


def _accumulate_squares(network: nn.Module, importance: Any, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Let the criterion see the gradient of each sample's loss, as the library's examples do."""
    importance.zero_grad()
    for image, label in zip(images.split(1), labels.split(1), strict=True):
        network.zero_grad()
        F.cross_entropy(network(image), label).backward()
        importance.accumulate_grad(network)
