"""The models that benchmarks measure: timm's by their name, torchvision's with a prefix."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

MODELS: dict[str, tuple[int, ...]] = {
    "resnet18": (3, 224, 224),
    "mobilenetv3_small_100": (3, 224, 224),
    "convnext_atto": (3, 224, 224),
    "vit_tiny_patch16_224": (3, 224, 224),
    "swin_tiny_patch4_window7_224": (3, 224, 224),
    "torchvision:swin_t": (3, 224, 224),
    "torchvision:googlenet": (3, 224, 224),
}
"""Sizes of one sample by name."""


def build(name: str, batch: int = 2) -> tuple[nn.Module, torch.Tensor]:
    """Return a model in evaluation mode and a batch for it."""
    torch.manual_seed(0)
    library, _, plain = name.rpartition(":")
    size = MODELS.get(name, (3, 224, 224))
    model = _torchvision(plain) if library == "torchvision" else _timm(plain)
    return model.eval(), torch.randn(batch, *size)


def _timm(name: str) -> nn.Module:
    import timm

    model: nn.Module = timm.create_model(name)
    return model


def _torchvision(name: str) -> nn.Module:
    import torchvision

    options: dict[str, Any] = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model: nn.Module = getattr(torchvision.models, name)(weights=None, **options)
    return model
