"""What is added to the loss of the task so that the FLOPs reach their target."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from torch_dag_pruning.masked_ops.mask import Mask
from torch_dag_pruning.masking.masking import Masking

RIDGE = 1e-3
BLOCK_WEIGHT = 1e-3


def annealed(step: int, steps: int) -> float:
    """Return ``1 - 0.1^(step / steps)``, which grows from 0 to 0.9 and beyond."""
    return 1.0 - math.pow(0.1, step / steps)


def excess(share: Tensor, target: float) -> Tensor:
    """Return how far a share of FLOPs is above its target, relative to it: ``relu(share / target - 1)``."""
    return nn.functional.relu(share / target - 1.0)


@dataclass
class BlockDistillation:
    """How far masks move the operands that they are laid over (blockwise knowledge distillation).

    For each mask m over an operand x: the mean over masked slots of ``mean((m x - x)^2) / (var(x) + 1e-3)``. Gradients
    flow into masks only.

    Attributes:
        masking: The masked graph; its masks must lie on edges.
    """

    masking: Masking
    _terms: dict[str, list[Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for op, keys in self.masking.edges():
            op.register_forward_hook(_Measure(self._terms, keys))

    def reset(self) -> None:
        """Forget the previous call of the graph."""
        self._terms.clear()

    def value(self, like: Tensor) -> Tensor:
        """Return 0.001 times the mean over orbits of the sum over their masks, for the latest call in training mode."""
        count = max(1, len(self.masking.masks))
        terms = [term for each in self._terms.values() for term in each]
        return BLOCK_WEIGHT * torch.stack(terms).sum().to(like) / count if terms else torch.zeros_like(like)


@dataclass(frozen=True)
class _Measure:
    """Forward hook of a mask that stores its term under the key of each orbit in it."""

    terms: dict[str, list[Tensor]]
    keys: tuple[str, ...]

    def __call__(self, op: Mask, operands: tuple[Tensor, ...], result: Tensor) -> None:
        del result
        if op.training:
            term = moved(operands[0], op.mask)
            for key in self.keys:
                self.terms.setdefault(key, []).append(term)

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return NoHook, ()


class NoHook:
    """A hook that does nothing: what becomes of a hook in a copy of a graph, which has the masks of that moment."""

    def __call__(self, *arguments: object) -> None:
        """Do nothing."""


def moved(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over masked slots of ``mean((m x - x)^2) / (var(x) + 1e-3)``; differentiable in the mask."""
    aligned = mask.reshape([1] * (x.dim() - mask.dim()) + list(mask.shape))
    others = [dim for dim in range(x.dim()) if aligned.shape[dim] == 1]
    with torch.no_grad():
        wide = x.detach().float()
        mean = wide.mean(others, keepdim=True) if others else wide
        square = wide.square().mean(others, keepdim=True) if others else wide.square()
        relative = square / ((square - mean.square()).clamp_min(0.0) + RIDGE)
    return ((1.0 - aligned).square() * relative).mean()
