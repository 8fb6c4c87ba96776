"""The ways to make a network small, by the names that they have in the rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import torch_dag_core as td
import torch_dag_pruning as tdp

from .networks import NETWORKS
from .training import Data, Fixed

HESSIAN_SAMPLES = 256


@dataclass(frozen=True)
class Start:
    """What every way starts from.

    Attributes:
        name: The name of the network.
        network: The trained network.
        dag: The same as a graph.
        images: Training images for calibration, without labels for our ways.
        labels: Their labels, which the gradients of Torch-Pruning's criteria need.
    """

    name: str
    network: nn.Module
    dag: Any
    images: torch.Tensor
    labels: torch.Tensor

    @classmethod
    def of(cls, name: str, network: nn.Module, data: Data, samples: int, seed: int) -> Start:
        chosen = torch.randperm(len(data.images), generator=torch.Generator().manual_seed(seed))[:samples]
        dag = td.build_from_unstructured_module(network.eval(), data.images[:2]).eval()
        return cls(name, network, dag, data.images[chosen], data.labels[chosen])

    def flops_share(self, network: nn.Module) -> float:
        """Return the FLOPs of a network relative to those of the trained one, both counted by our analysis."""
        dag = network
        if not isinstance(network, td.DagModule):
            dag = td.build_from_unstructured_module(network.eval(), self.images[:2])
        return float(tdp.analyze(dag).cost() / tdp.analyze(self.dag).cost())


Way = Callable[[Start, float, int], Any]
"""From the start, a share of the FLOPs and the number of training steps that follow, to what `train` takes."""


def ours(**settings: Any) -> Way:
    """Prune at once and repair, with the library's defaults where ``settings`` say nothing else."""

    def make(start: Start, share: float, steps: int) -> Fixed:
        algorithm = tdp.OneShotChannelPruning(start.dag, None, keep_flops=share, **settings)
        algorithm.calibrate(list(start.images.split(256)))
        return Fixed(algorithm.finalize())

    return make


def torch_pruning(criterion: str) -> Way:
    """Prune with Torch-Pruning; the Hessian criterion sees fewer samples since it takes them one by one."""

    def make(start: Start, share: float, steps: int) -> Fixed:
        from .torch_pruning_ways import pruned

        count = HESSIAN_SAMPLES if criterion == "hessian" else len(start.images)
        fits = lambda network: start.flops_share(network) <= share  # noqa: E731
        return Fixed(pruned(criterion, start.network, start.images[:count], start.labels[:count], fits))

    return make


def from_scratch(start: Start, share: float, steps: int) -> Fixed:
    """Make a new network whose widths are the same share of those of the trained one."""
    make = NETWORKS[start.name]
    low, high = 0.02, 1.0
    for _ in range(9):
        middle = (low + high) / 2
        low, high = (middle, high) if start.flops_share(make(middle)) <= share else (low, middle)
    return Fixed(make(low))


def learned(start: Start, share: float, steps: int) -> Any:
    """Learn one width for each orbit (`LearnedChannelPruning` with its defaults)."""
    return _prepared(tdp.LearnedChannelPruning(start.dag, None, keep_flops=share, training_steps=steps), start)


def channel_pruning(start: Start, share: float, steps: int) -> Any:
    """Learn a logit for each channel (`ChannelPruning` with its defaults)."""
    return _prepared(tdp.ChannelPruning(start.dag, None, share, steps).algorithm, start)


def _prepared(algorithm: Any, start: Start) -> Any:
    algorithm.calibrate(list(start.images.split(256)))
    algorithm.prepare()
    return algorithm


ONCE: dict[str, Way] = {
    "ours": ours(),
    "Torch-Pruning magnitude": torch_pruning("magnitude"),
    "Torch-Pruning taylor": torch_pruning("taylor"),
    "Torch-Pruning fpgm": torch_pruning("fpgm"),
    "Torch-Pruning hessian": torch_pruning("hessian"),
    "uniform": ours(criterion="l2", scope="local"),
}
VARIANTS: dict[str, Way] = {
    "ours, not repaired": ours(recover="none"),
    "ours, uniform widths": ours(scope="local"),
    "ours, 2 steps": ours(steps=2),
    "ours, l2": ours(criterion="l2"),
    "ours, l2, isomorphic": ours(criterion="l2", scope="isomorphic"),
    "ours, l2, 3 steps": ours(criterion="l2", steps=3),
}
SCRATCH: dict[str, Way] = {"from scratch": from_scratch}
LEARNED: dict[str, Way] = {"ours": ours(), "learned": learned, "ChannelPruning": channel_pruning}
