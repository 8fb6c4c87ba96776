"""The two networks that are pruned: a small ResNet, and a small vision transformer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

CLASSES = 10


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o)
        self.conv2, self.bn2 = nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o)
        self.short = None
        if stride > 1 or i != o:
            self.short = nn.Sequential(nn.Conv2d(i, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.short is None else self.short(x)))


class ResNet(nn.Module):
    """Three blocks at 28, 14 and 7 pixels; 174,000 parameters. ``scale`` multiplies all widths."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        widths = [max(1, round(scale * width)) for width in (24, 48, 96)]
        self.stem = nn.Sequential(nn.Conv2d(1, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())
        ins = (widths[0], *widths[:-1])
        blocks = [Block(i, o, 1 + (n > 0)) for n, (i, o) in enumerate(zip(ins, widths, strict=True))]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(widths[-1], CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Attention(nn.Module):
    """Self-attention with one projection for queries, keys and values; the width of a head is read from its weights."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * inner), nn.Linear(inner, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, _ = x.shape
        parts = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, -1))


class Layer(nn.Module):
    """A transformer layer that normalises first."""

    def __init__(self, width: int, inner: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, inner, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Four layers of width 64 with four heads over 49 patches; 204,000 parameters. ``scale`` multiplies all widths."""

    def __init__(self, scale: float = 1.0, heads: int = 4, depth: int = 4) -> None:
        super().__init__()
        width, hidden, head = (max(1, round(scale * size)) for size in (64, 256, 16))
        self.patches = nn.Conv2d(1, width, 4, 4)
        self.position = nn.Parameter(0.02 * torch.randn(1, 49, width))
        self.layers = nn.Sequential(*(Layer(width, heads * head, hidden, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.layers(x)).mean(1))


NETWORKS: dict[str, Callable[..., nn.Module]] = {"resnet": ResNet, "vit": ViT}
