"""Small networks, each with one trap, and what makes any network show its errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from torch_dag_core.ops.attention import Attention

NETWORKS = {}


def network(*shape, tokens=0):
    """Register a network class with the shape of its example input (after the batch)."""

    def register(cls):
        NETWORKS[cls.__name__] = (cls, shape, tokens)
        return cls

    return register


def conv(i, o, k=3, **kwargs):
    return nn.Conv2d(i, o, k, padding=k // 2, **kwargs)


@network(3, 8, 8)
class Residual(nn.Module):
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


@network(3, 8, 8)
class GroupNormGroupedConv(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = conv(3, 16), nn.GroupNorm(4, 16)
        self.grouped, self.second = conv(16, 24, groups=4), nn.GroupNorm(4, 24)
        self.head = nn.Conv2d(24, 5, 1)

    def forward(self, x):
        return self.head(F.silu(self.second(self.grouped(F.silu(self.norm(self.stem(x)))))))


@network(3, 8, 8)
class Shuffles(nn.Module):
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


@network(3, 8, 8)
class DoubledCat(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.mix, self.head = conv(3, 6), nn.BatchNorm2d(12), conv(12, 8), nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.stem(x))
        return self.head(self.mix(F.relu(self.norm(torch.cat([x, x], 1)))).mean((2, 3)))


@network(3, 8, 8)
class CrossedCats(nn.Module):
    def __init__(self):
        super().__init__()
        self.m, self.n, self.mix, self.head = conv(3, 5), conv(3, 8), conv(13, 6), nn.Conv2d(6, 4, 1)

    def forward(self, x):
        m, n = self.m(x), self.n(x)
        return self.head(F.relu(self.mix(F.relu(torch.cat([m, n], 1) + torch.cat([n, m], 1)))))


class RMSNorm(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


@network(7, tokens=20)
class Llama(nn.Module):
    """Grouped queries, half-rotated positions, root mean square norms, a gated MLP, tied embeddings."""

    def __init__(self, width=24, heads=6, kv=2, d=8):
        super().__init__()
        self.heads, self.kv, self.d = heads, kv, d
        self.embed = nn.Embedding(20, width)
        self.norm1, self.norm2, self.norm3 = RMSNorm(width), nn.RMSNorm(width), RMSNorm(width)
        self.q, self.k, self.v = nn.Linear(width, heads * d), nn.Linear(width, kv * d), nn.Linear(width, kv * d)
        self.o = nn.Linear(heads * d, width, bias=False)
        self.gate, self.up, self.down = nn.Linear(width, 32), nn.Linear(width, 32), nn.Linear(32, width)
        angles = torch.arange(7)[:, None] * 10000 ** (-torch.arange(0, d, 2) / d)
        self.register_buffer("cos", torch.cat([angles.cos()] * 2, -1))
        self.register_buffer("sin", torch.cat([angles.sin()] * 2, -1))

    def rotate(self, x):
        first, second = x.chunk(2, -1)
        return x * self.cos + torch.cat([-second, first], -1) * self.sin

    def forward(self, tokens):
        x = self.embed(tokens)
        b, n, _ = x.shape
        y = self.norm1(x)
        q = self.rotate(self.q(y).view(b, n, self.heads, self.d).transpose(1, 2))
        k = self.rotate(self.k(y).view(b, n, self.kv, self.d).transpose(1, 2))
        v = self.v(y).view(b, n, self.kv, self.d).transpose(1, 2)
        k, v = (
            t[:, :, None].expand(b, self.kv, self.heads // self.kv, n, self.d).reshape(b, self.heads, n, self.d)
            for t in (k, v)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(b, n, -1))
        y = self.norm2(x)
        x = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return self.norm3(x) @ self.embed.weight.transpose(0, 1)


@network(3, 16, 16)
class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down1, self.down2 = conv(3, 8), conv(8, 16, stride=2)
        self.up, self.norm = nn.ConvTranspose2d(16, 16, 2, 2), nn.GroupNorm(8, 24)
        self.out, self.head = conv(24, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        skip = F.relu(self.down1(x))
        y = self.up(F.relu(self.down2(skip)))
        return self.head(F.relu(self.out(self.norm(torch.cat([y, skip], 1)))))


@network(8, 8, 8)
class AllEights(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.norm = conv(8, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.LayerNorm(8)

    def forward(self, x):
        x = F.relu(self.a(x)).flatten(2).transpose(1, 2)
        x = self.norm(F.gelu(self.b(x)))
        return self.c(x.reshape(-1, 8, 8, 8).mean((1, 2)))


@network(3, 8, 8)
class DepthwiseMultiplier(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.depth, self.point = conv(3, 6), conv(6, 18, groups=6), nn.Conv2d(18, 10, 1)
        self.act, self.head = nn.PReLU(18), nn.Conv2d(10, 3, 1)

    def forward(self, x):
        return self.head(F.relu(self.point(self.act(self.depth(F.relu(self.stem(x)))))))


@network(3, 8, 8)
class SqueezeExcite(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.reduce, self.expand = conv(3, 12), nn.Conv2d(12, 5, 1), nn.Conv2d(5, 12, 1)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = x * torch.sigmoid(self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))))
        return self.head(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


@network(3, 8, 8)
class Dense(nn.Module):
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


@network(3, 8, 8)
class SharedTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.shared, self.norm, self.head = conv(3, 8), conv(8, 8), nn.BatchNorm2d(8), conv(8, 2)

    def forward(self, x):
        x = self.stem(x)
        x = F.relu(self.norm(self.shared(x)))
        x = F.relu(self.norm(self.shared(x)))
        return self.head(x)


@network(6, tokens=16)
class TiedWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.out = nn.Embedding(16, 12), nn.Linear(12, 12), nn.Linear(12, 16, bias=False)
        self.position = nn.Parameter(torch.randn(6, 12))
        self.norm = nn.LayerNorm(12)
        self.out.weight = self.embed.weight

    def forward(self, x):
        return self.out(self.norm(torch.tanh(self.mix(self.embed(x) + self.position))))


@network(3, 8, 8)
class Transformer(nn.Module):
    """Fused qkv, class token, spelled-out attention."""

    def __init__(self, width=24, heads=3):
        super().__init__()
        self.heads, self.d = heads, width // heads
        self.patch = nn.Conv2d(3, width, 2, 2)
        self.token, self.position = nn.Parameter(torch.zeros(1, 1, width)), nn.Parameter(torch.zeros(1, 17, width))
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2, self.head = nn.Linear(width, 40), nn.Linear(40, width), nn.Linear(width, 5)
        self.scale = nn.Parameter(torch.full((width,), 1e-5))

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, self.d).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) / math.sqrt(self.d)).softmax(-1)
        x = x + self.proj((weights @ v).transpose(1, 2).reshape(b, n, c)) * self.scale
        x = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return self.head(self.norm3(x)[:, 0])


@network(9, 24)
class Composite(nn.Module):
    """Attention as one op, which the analysis takes apart."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(24, 24), nn.LayerNorm(24), nn.Linear(24, 5)
        self.attn = Attention(24, 3, 8, 24, scale=8**-0.5, qk_norm="layer_norm", out_norm="rms_norm")
        self.spelled_out = Attention(24, 4, 5, 24, scale=0.4, fused=False, qkv_bias=False)

    def forward(self, x):
        x = self.first(x)
        x = x + self.attn(self.norm(x))
        return self.head((x + self.spelled_out(x)).mean(1))


@network(3, 8, 8)
class Windows(nn.Module):
    """Batch merged with heads and with windows."""

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


@network(3, 8, 8)
class PaddedShortcut(nn.Module):
    """Channels padded with zeros where the width grows."""

    def __init__(self):
        super().__init__()
        self.stem, self.a, self.head = conv(3, 6), conv(6, 10), nn.Conv2d(10, 3, 1)

    def forward(self, x):
        x = F.relu(self.stem(x))
        return self.head(F.relu(self.a(x) + F.pad(x, (0, 0, 0, 0, 2, 2))))


@network(12)
class SharedTable(nn.Module):
    """One constant that two layers of equal width read, each pruned in its own way."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(12, 10), nn.Linear(12, 10), nn.Linear(10, 4)
        self.c, self.d = nn.Linear(10, 10), nn.Linear(10, 12)
        self.register_buffer("table", torch.linspace(-1.5, 2.0, 10))

    def forward(self, x):
        a = torch.tanh(self.a(x) * self.table)
        b = torch.sin(self.b(x + self.d(a)) + self.table)
        return self.head(F.gelu(self.c(b)) - self.table)


@network(3, 8, 8)
class ResponseNorm(nn.Module):
    """Global response normalisation, and weights standardised over their inputs."""

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


def awake(model, seed=0):
    """Give a model random scales, shifts and statistics: zeros and ones hide errors."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if not tensor.is_floating_point() or "cos" in name or "sin" in name or name == "table":
                continue
            noise = torch.rand(tensor.shape, generator=generator)
            if "var" in name or (tensor.dim() <= 1 and "weight" in name):
                tensor.copy_(0.5 + noise)
            elif tensor.dim() <= 1 or name.split(".")[-1] in ("token", "position", "gain", "cls_token", "pos_embed"):
                tensor.copy_(noise - 0.3)
    return model.eval()


def example(shape, tokens, batch=2):
    if tokens:
        return torch.randint(tokens, (batch, *shape), generator=torch.Generator().manual_seed(1))
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1))


def pytest_generate_tests(metafunc):
    chosen = [marker.args[0] for marker in metafunc.definition.iter_markers("parametrize")]
    if "network_name" in metafunc.fixturenames and "network_name" not in chosen:
        metafunc.parametrize("network_name", list(NETWORKS))


@pytest.fixture
def network_and_input(network_name):
    cls, shape, tokens = NETWORKS[network_name]
    torch.manual_seed(0)
    return awake(cls()), example(shape, tokens)


@pytest.fixture
def wake():
    return awake
