"""Example inputs of the size that a timm model expects."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn


def example_inputs(model: nn.Module) -> tuple[Tensor, ...] | None:
    """Return two black images (2, channels, height, width) for a timm model; None for other models."""
    config: Any = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    size = config.get("input_size") if hasattr(config, "get") else None
    if size is None or not type(model).__module__.startswith("timm."):
        return None
    channels, *space = size
    return (torch.zeros(2, _channels(model, config, channels), *(_image_size(model) or space)),)


def _image_size(model: nn.Module) -> tuple[int, int] | None:
    """Return (height, width) as passed by ``img_size=``; None if no module has an attribute of that name."""
    for module in model.modules():
        size = getattr(module, "img_size", None)
        if isinstance(size, int):
            return size, size
        if isinstance(size, (tuple, list)):
            return cast("tuple[int, int]", tuple(size))
    return None


def _channels(model: nn.Module, config: Any, channels: int) -> int:
    """Return the number of image channels, which may have been changed by ``in_chans=``."""
    first = config.get("first_conv")
    names = [first] if isinstance(first, str) else list(first or ())
    modules = dict(model.named_modules())
    widths = [getattr(modules.get(name), "in_channels", channels) for name in names]
    # A stem that moves pixels into channels has a multiple of the image's channels; that is no change.
    changed = [width for width in widths if width % channels]
    return changed[0] if changed else channels
