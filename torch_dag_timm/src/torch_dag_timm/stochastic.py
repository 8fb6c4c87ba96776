"""timm's stochastic depth, converted into the core's op, and its DropBlock, traced for batches of any size."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from torch_dag_core.conversion.builder import Call, Value
from torch_dag_core.ops.stochastic import DropPath
from torch_dag_core.plugins.registry import AtomicSpec
from torch_dag_timm.examples import Case, examples
from torch_dag_timm.releases import at_least


def convert(call: Call, module: Any, x: Value) -> Value:
    """Emit the op; with a rate of zero, return the input."""
    if not module.drop_prob:
        return x
    return call.emit(DropPath(float(module.drop_prob), bool(module.scale_by_keep)), x, path=call.path)


def drop_block(module: Any, x: Tensor) -> Tensor:
    """Compute what DropBlock2d does (arXiv:1810.12890), with the same random draws.

    The drop rate is computed from the image size, so that tracing makes a constant of it.
    """
    if not (module.training and module.drop_prob):
        return x
    batch, channels, *space = x.shape
    window = tuple(min(module.block_size, size) for size in space)
    seeds = torch.empty(batch, 1 if module.couple_channels else channels, *space, dtype=x.dtype, device=x.device)
    dropped = _around(seeds.bernoulli_(_seed_rate(module, space, window)), window)
    kept = 1 - dropped
    if module.with_noise:
        return x * kept + torch.empty_like(kept).normal_() * dropped
    return x * _scaled(kept) if module.scale_by_keep else x * kept


def _seed_rate(module: Any, space: list[int], window: tuple[int, ...]) -> float:
    """Return the probability that a pixel is the middle of a block; about ``drop_prob`` of all pixels are dropped."""
    middles = math.prod(size - block + 1 for size, block in zip(space, window, strict=True))
    return float(module.gamma_scale * module.drop_prob * math.prod(space)) / math.prod(window) / middles


def _around(seeds: Tensor, window: tuple[int, ...]) -> Tensor:
    """Return a block of ones around each one in ``seeds``; a block of even size is one pixel shorter on one side."""
    height, width = window
    blocks = functional.max_pool2d(seeds, window, 1, (height // 2, width // 2))
    return blocks[..., (height + 1) % 2 :, (width + 1) % 2 :]


def _scaled(kept: Tensor) -> Tensor:
    """Divide a mask of zeros and ones by its mean; where nothing is kept, the result is zeros."""
    return kept / kept.float().mean().clamp(min=1e-7).to(kept.dtype)


_DROP_PATH, _DROP_BLOCK = "timm.layers.drop.DropPath", "timm.layers.drop.DropBlock2d"
_PATHS: tuple[Case, ...] = (((0.4,), {}, (8, 3, 4)), ((0.4, False), {}, (8, 3)), ((0.0,), {}, (2, 3)))
_BLOCKS: tuple[Case, ...] = (
    ((0.4, 3), {}, (2, 4, 8, 8)),
    ((0.4, 4), {"couple_channels": False, "scale_by_keep": False}, (2, 4, 8, 9)),
    ((0.4, 3), {"with_noise": True}, (2, 4, 2, 8)),
)
DROP_PATH = AtomicSpec(target=_DROP_PATH, convert=convert, examples=examples(_DROP_PATH, *_PATHS))
if at_least(1, 0, 23):  # Before, timm drew the blocks in another way.
    DROP_BLOCK = AtomicSpec(target=_DROP_BLOCK, trace_as=drop_block, examples=examples(_DROP_BLOCK, *_BLOCKS))
