"""Networks of tokens, each with one trap."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from torch_dag_core.ops.attention import Attention


class RMSNorm(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Llama(nn.Module):
    """Grouped queries, half-rotated positions, root mean square norms, a gated MLP, tied embeddings."""

    shape = (7,)
    tokens = 20

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


class TiedWeights(nn.Module):
    shape = (6,)
    tokens = 16

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.out = nn.Embedding(16, 12), nn.Linear(12, 12), nn.Linear(12, 16, bias=False)
        self.position = nn.Parameter(torch.randn(6, 12))
        self.norm = nn.LayerNorm(12)
        self.out.weight = self.embed.weight

    def forward(self, x):
        return self.out(self.norm(torch.tanh(self.mix(self.embed(x) + self.position))))


class Transformer(nn.Module):
    """Fused qkv, class token, spelled-out attention."""

    shape = (3, 8, 8)

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


class Composite(nn.Module):
    """Attention as one op, which the analysis takes apart."""

    shape = (9, 24)

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(24, 24), nn.LayerNorm(24), nn.Linear(24, 5)
        self.attn = Attention(24, 3, 8, 24, scale=8**-0.5, qk_norm="layer_norm", out_norm="rms_norm")
        self.spelled_out = Attention(24, 4, 5, 24, scale=0.4, fused=False, qkv_bias=False)

    def forward(self, x):
        x = self.first(x)
        x = x + self.attn(self.norm(x))
        return self.head((x + self.spelled_out(x)).mean(1))


class SharedTable(nn.Module):
    """One constant that two layers of equal width read, each pruned in its own way."""

    shape = (12,)

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(12, 10), nn.Linear(12, 10), nn.Linear(10, 4)
        self.c, self.d = nn.Linear(10, 10), nn.Linear(10, 12)
        self.register_buffer("table", torch.linspace(-1.5, 2.0, 10))

    def forward(self, x):
        a = torch.tanh(self.a(x) * self.table)
        b = torch.sin(self.b(x + self.d(a)) + self.table)
        return self.head(F.gelu(self.c(b)) - self.table)
