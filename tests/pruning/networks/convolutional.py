"""Networks for images, each with one trap."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def conv(i, o, k=3, **kwargs):
    return nn.Conv2d(i, o, k, padding=k // 2, **kwargs)


class Residual(nn.Module):
    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 8)
        self.norm = nn.BatchNorm2d(8)
        self.a, self.b = conv(8, 12, bias=False), conv(12, 8)
        self.inner = nn.BatchNorm2d(12)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        x = x + self.b(F.relu(self.inner(self.a(x))))
        return self.head(x.mean((2, 3)))


class GroupNormGroupedConv(nn.Module):
    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem, self.norm = conv(3, 16), nn.GroupNorm(4, 16)
        self.grouped, self.second = conv(16, 24, groups=4), nn.GroupNorm(4, 24)
        self.head = nn.Conv2d(24, 5, 1)

    def forward(self, x):
        return self.head(F.silu(self.second(self.grouped(F.silu(self.norm(self.stem(x)))))))


class Shuffles(nn.Module):
    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem, self.up = conv(3, 12), conv(12, 24)
        self.shuffle, self.pixels = nn.ChannelShuffle(3), nn.PixelShuffle(2)
        self.grouped = nn.Conv2d(12, 12, 1, groups=3)
        self.head = conv(6, 4)

    def forward(self, x):
        x = self.shuffle(self.grouped(F.relu(self.stem(x))))
        b, c, h, w = x.shape
        x = x.view(b, 4, c // 4, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.head(self.pixels(torch.tanh(self.up(x))))


class DoubledCat(nn.Module):
    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.mix, self.head = conv(3, 6), nn.BatchNorm2d(12), conv(12, 8), nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.stem(x))
        return self.head(self.mix(F.relu(self.norm(torch.cat([x, x], 1)))).mean((2, 3)))


class CrossedCats(nn.Module):
    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.m, self.n, self.mix, self.head = conv(3, 5), conv(3, 8), conv(13, 6), nn.Conv2d(6, 4, 1)

    def forward(self, x):
        m, n = self.m(x), self.n(x)
        return self.head(F.relu(self.mix(F.relu(torch.cat([m, n], 1) + torch.cat([n, m], 1)))))


class UNet(nn.Module):
    shape = (3, 16, 16)

    def __init__(self):
        super().__init__()
        self.down1, self.down2 = conv(3, 8), conv(8, 16, stride=2)
        self.up, self.norm = nn.ConvTranspose2d(16, 16, 2, 2), nn.GroupNorm(8, 24)
        self.out, self.head = conv(24, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        skip = F.relu(self.down1(x))
        y = self.up(F.relu(self.down2(skip)))
        return self.head(F.relu(self.out(self.norm(torch.cat([y, skip], 1)))))


class AllEights(nn.Module):
    shape = (8, 8, 8)

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.norm = conv(8, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x):
        x = F.relu(self.a(x)).flatten(2).transpose(1, 2)
        x = self.norm(F.gelu(self.b(x)))
        return self.c(x.reshape(-1, 8, 8, 8).mean((1, 2)))


class DepthwiseMultiplier(nn.Module):
    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem, self.depth, self.point = conv(3, 6), conv(6, 18, groups=6), nn.Conv2d(18, 10, 1)
        self.act, self.head = nn.PReLU(18), nn.Conv2d(10, 3, 1)

    def forward(self, x):
        return self.head(F.relu(self.point(self.act(self.depth(F.relu(self.stem(x)))))))


class SqueezeExcite(nn.Module):
    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem, self.reduce, self.expand = conv(3, 12), nn.Conv2d(12, 5, 1), nn.Conv2d(5, 12, 1)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = x * torch.sigmoid(self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class Dense(nn.Module):
    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem = conv(3, 6)
        self.norms = nn.ModuleList(nn.BatchNorm2d(6 + 4 * i) for i in range(3))
        self.layers = nn.ModuleList(conv(6 + 4 * i, 4) for i in range(3))
        self.head = nn.Linear(18 * 16, 4)

    def forward(self, x):
        x = self.stem(x)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = torch.cat([x, layer(F.relu(norm(x)))], 1)
        return self.head(F.avg_pool2d(x, 2).flatten(1))


class SharedTwice(nn.Module):
    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem, self.shared, self.norm, self.head = conv(3, 8), conv(8, 8), nn.BatchNorm2d(8), conv(8, 2)

    def forward(self, x):
        x = self.stem(x)
        x = F.relu(self.norm(self.shared(x)))
        x = F.relu(self.norm(self.shared(x)))
        return self.head(x)


class Windows(nn.Module):
    """Batch merged with heads and with windows."""

    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem, self.qkv, self.proj, self.head = conv(3, 16), nn.Linear(16, 48), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(self, x):
        x = self.stem(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        x = x.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        q, k, v = self.qkv(x).reshape(-1, 16, 3, 4, 4).permute(2, 0, 3, 1, 4).reshape(3, -1, 16, 4).unbind(0)
        y = (torch.bmm(q, k.transpose(1, 2)).softmax(-1) @ v).reshape(-1, 4, 16, 4).transpose(1, 2).reshape(-1, 16, c)
        y = self.proj(y).view(b, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        return self.head(y.mean((1, 2)))


class PaddedShortcut(nn.Module):
    """Channels padded with zeros where the width grows."""

    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.head = conv(3, 6), conv(6, 10), nn.Conv2d(10, 3, 1)

    def forward(self, x):
        x = F.relu(self.stem(x))
        return self.head(F.relu(self.a(x) + F.pad(x, (0, 0, 0, 0, 2, 2))))


class ResponseNorm(nn.Module):
    """Global response normalisation, and weights standardised over their inputs."""

    shape = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem, self.mix, self.head = conv(3, 12), conv(12, 9), nn.Conv2d(9, 3, 1)
        self.gain = nn.Parameter(torch.ones(1, 12, 1, 1))

    def forward(self, x):
        x = F.gelu(self.stem(x))
        norms = x.norm(dim=(2, 3), keepdim=True)
        x = x + self.gain * (x * (norms / (norms.mean(1, keepdim=True) + 1e-6)))
        weight = self.mix.weight
        mean = weight.mean((1, 2, 3), keepdim=True)
        weight = (weight - mean) / (weight.var((1, 2, 3), keepdim=True) + 1e-5).sqrt()
        return self.head(F.relu(F.conv2d(x, weight, self.mix.bias, padding=1)))
