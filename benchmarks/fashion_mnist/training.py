"""The data, and the one training loop that every way to prune goes through."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional as F

BATCH = 128


@dataclass(frozen=True)
class Data:
    """All images, normalised, with their labels; the images have the shape (count, 1, 28, 28)."""

    images: torch.Tensor
    labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor


@dataclass(frozen=True)
class Recipe:
    """How long and with which optimizer a network is trained."""

    optimizer: str  # "sgd" or "adamw"
    rate: float
    weight_decay: float
    smoothing: float = 0.05

    def for_tuning(self) -> Recipe:
        """Return the same with half of the learning rate, for networks that are trained already."""
        return replace(self, rate=self.rate / 2)


RECIPES = {"resnet": Recipe("sgd", 0.1, 5e-4), "vit": Recipe("adamw", 2e-3, 0.05)}
"""From scratch, by the name of the network."""


def read(root: str, test: int | None = None) -> Data:
    """Return what torchvision's ``FashionMNIST(root)`` holds; only the first ``test`` test images."""
    from torchvision.datasets import FashionMNIST

    parts: list[torch.Tensor] = []
    for train in (True, False):
        data = FashionMNIST(root=root, train=train, download=False)
        count = len(data.data) if train else test
        parts += [((data.data[:, None].float() / 255 - 0.286) / 0.353)[:count], data.targets[:count]]
    return Data(*parts)


def augmented(images: torch.Tensor) -> torch.Tensor:
    """Flip half of the images, and shift all of them by the same zero to two pixels."""
    flip = torch.rand(len(images)) < 0.5
    images = torch.where(flip[:, None, None, None], images.flip(3), images)
    dy, dx = torch.randint(0, 5, (2,)).tolist()
    return F.pad(images, (2, 2, 2, 2), value=-0.81)[:, :, dy : dy + 28, dx : dx + 28]


class Fixed:
    """A network in the place of an algorithm that still learns which channels go."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Nothing will change."""

    def loss(self) -> float:
        return 0.0

    def step(self) -> bool:
        return False

    def finalize(self) -> nn.Module:
        return self.network


def optimizer_of(recipe: Recipe, network: nn.Module) -> torch.optim.Optimizer:
    parameters = list(network.parameters())
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, recipe.rate, momentum=0.9, weight_decay=recipe.weight_decay, nesterov=True)
    return torch.optim.AdamW(parameters, recipe.rate, weight_decay=recipe.weight_decay)


def train(
    algorithm: Fixed, data: Data, steps: int, recipe: Recipe, seed: int, teacher: nn.Module | None = None
) -> nn.Module:
    """Train for a number of steps of `BATCH` images: cross entropy, and the teacher's logits if there is a teacher.

    ``algorithm`` is a `Fixed` network, or a pruning algorithm that is already prepared. Layers are
    computed in bfloat16.
    """
    torch.manual_seed(seed)
    algorithm.network.train().to(memory_format=torch.channels_last)
    optimizer = optimizer_of(recipe, algorithm.network)
    algorithm.attach(optimizer)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, total_steps=max(steps, 2), pct_start=0.2)
    start, order = time.time(), torch.empty(0, dtype=torch.long)
    for step in range(steps):
        if len(order) < BATCH:
            order = torch.randperm(len(data.images))
        chosen, order = order[:BATCH], order[BATCH:]
        x = augmented(data.images[chosen]).to(memory_format=torch.channels_last)
        loss = loss_of(algorithm.network, x, data.labels[chosen], recipe.smoothing, teacher) + algorithm.loss()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        algorithm.step()
        if step % 100 == 99:
            reached = f"  step {step + 1}: loss {loss.item():.3f}, {time.time() - start:.0f} s"
            print(reached, file=sys.stderr, flush=True)
    return algorithm.finalize().eval().to(memory_format=torch.contiguous_format)


def loss_of(
    network: nn.Module, x: torch.Tensor, labels: torch.Tensor, smoothing: float, teacher: nn.Module | None
) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(x)
    logits = logits.float()
    loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    return loss if teacher is None else loss + softened(logits, teacher, x)


def softened(logits: torch.Tensor, teacher: Callable[..., torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Return the divergence from the teacher's probabilities at temperature 2, scaled by the squared temperature."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        wanted = F.log_softmax(teacher(x).float() / 2, 1)
    return 4 * F.kl_div(F.log_softmax(logits / 2, 1), wanted, log_target=True, reduction="batchmean")


@torch.no_grad()
def accuracy(network: nn.Module, data: Data) -> float:
    """Return the share of the test images that are classified rightly, in percent."""
    parts = zip(data.test_images.split(500), data.test_labels.split(500), strict=True)
    hits = sum(int((network(x).argmax(1) == y).sum()) for x, y in parts)
    return 100 * hits / len(data.test_images)
