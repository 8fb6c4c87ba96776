"""Multi-head self-attention as one composite op."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from torch_dag_core.ops import contraction
from torch_dag_core.ops.flops import Parameters, Shapes, numel
from torch_dag_core.plugins.declarations import op


def head_norm(kind: str, width: int, eps: Any) -> nn.Module:
    """Return a normalisation over the last dimension, of size ``width``, by its name."""
    kinds: dict[str, Any] = {"none": nn.Identity, "layer_norm": nn.LayerNorm, "rms_norm": nn.RMSNorm}
    module: nn.Module = kinds[kind](width, eps)
    return module


def self_attention(module: Any, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return the FLOPs of the projections, and of attention within each head."""
    tokens, dim = inputs[0][-2:]
    rows, inner = numel(inputs[0][:-1]), parameters["proj.weight"][1]
    head = (inputs[0][0], module.num_heads, tokens, module.head_dim)
    mixing = contraction.attention(module, (head, head, head), (head,), parameters)
    biases = rows * sum(parameters[name][0] for name in ("qkv.bias", "proj.bias") if name in parameters)
    return 2 * rows * (3 * inner * dim + inner * outputs[0][-1]) + biases + mixing


@op("core.attention", flops=self_attention, expand=lambda module: module)
class Attention(nn.Module):
    """Self-attention with a fused query-key-value projection (arXiv:1706.03762), as in vision transformers.

    Attributes:
        qkv: Linear(dim, 3 * num_heads * head_dim).
        q_norm, k_norm: Normalisation ``qk_norm`` over head_dim: "none", "layer_norm" or "rms_norm".
        norm: Normalisation ``out_norm`` over num_heads * head_dim, before the projection.
        proj: Linear(num_heads * head_dim, out_dim).
    """

    def __init__(
        self, dim: int, num_heads: int, head_dim: int, out_dim: int, *, scale: float, qkv_bias: bool = True,
        proj_bias: bool = True, qk_norm: str = "none", out_norm: str = "none", norm_eps: float | None = 1e-6,
        attn_drop: float = 0.0, proj_drop: float = 0.0, fused: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self._config = {
            "dim": dim, "num_heads": num_heads, "head_dim": head_dim, "out_dim": out_dim, "scale": scale,
            "qkv_bias": qkv_bias, "proj_bias": proj_bias, "qk_norm": qk_norm, "out_norm": out_norm,
            "norm_eps": norm_eps, "attn_drop": attn_drop, "proj_drop": proj_drop, "fused": fused,
        }  # fmt: skip
        self.num_heads, self.head_dim, self.scale, self.fused = num_heads, head_dim, scale, fused
        inner = num_heads * head_dim
        self.qkv = nn.Linear(dim, 3 * inner, bias=qkv_bias)
        self.q_norm = head_norm(qk_norm, head_dim, norm_eps)
        self.k_norm = head_norm(qk_norm, head_dim, norm_eps)
        self.norm = head_norm(out_norm, inner, norm_eps)
        self.proj = nn.Linear(inner, out_dim, bias=proj_bias)
        self.attn_drop, self.proj_drop = nn.Dropout(attn_drop), nn.Dropout(proj_drop)

    def config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return dict(self._config)

    def extra_repr(self) -> str:
        """Return the sizes, for ``repr``."""
        return f"dim={self._config['dim']}, num_heads={self.num_heads}, head_dim={self.head_dim}"

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return self-attention of x (batch, tokens, dim): (batch, tokens, out_dim).

        ``mask`` is added to the scores (batch, num_heads, tokens, tokens); it broadcasts.
        """
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        query, key = self.q_norm(query), self.k_norm(key)
        mix = self._fused if self.fused else self._spelled_out
        mixed = mix(query, key, value, mask).transpose(1, 2).reshape(batch, tokens, self.num_heads * self.head_dim)
        projected: Tensor = self.proj_drop(self.proj(self.norm(mixed)))
        return projected

    def _fused(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        dropout = self.attn_drop.p if self.training else 0.0
        return functional.scaled_dot_product_attention(query, key, value, mask, dropout, scale=self.scale)

    def _spelled_out(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        scores = (query * self.scale) @ key.transpose(-2, -1)
        weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
        dropped: Tensor = self.attn_drop(weights)
        return dropped @ value
