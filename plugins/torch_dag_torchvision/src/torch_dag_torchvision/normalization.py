"""torchvision's frozen batch norm, which is a batch norm by given statistics in both modes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_core.ops.normalization import FrozenBatchNorm
from torch_dag_core.plugins.registry import AtomicSpec


def frozen_batch_norm(module: Any, x: Tensor) -> Tensor:
    """Normalise x (batch, channels, height, width) with a single op."""
    result: Tensor = FrozenBatchNorm(module.eps)(x, module.running_mean, module.running_var, module.weight, module.bias)
    return result


def _examples() -> list[tuple[nn.Module, tuple[Tensor, ...]]]:
    from torchvision.ops import FrozenBatchNorm2d

    norm = FrozenBatchNorm2d(4)
    for number, buffer in enumerate(norm.buffers()):
        buffer.copy_(torch.linspace(0.5 + number, 2, 4))
    return [(norm, (torch.linspace(-2, 2, 96).view(2, 4, 3, 4),))]


FROZEN = AtomicSpec(target="torchvision.ops.misc.FrozenBatchNorm2d", trace_as=frozen_batch_norm, examples=_examples)
