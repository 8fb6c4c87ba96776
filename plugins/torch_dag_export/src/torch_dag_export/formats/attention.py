"""Attention in simple operations, which every runtime computes alike."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.export import ExportedProgram

_INFINITE = float("inf")


def with_simple_attention(program: ExportedProgram) -> ExportedProgram:
    """Return a program in which products, a sum and a softmax stand for each call of scaled dot-product attention.

    PyTorch's own translations of the one call into other formats leave out masks, or treat rows that a mask hides
    whole in another way.
    """
    simple: ExportedProgram = program.run_decompositions(
        {torch.ops.aten.scaled_dot_product_attention.default: _attention}
    )
    return simple


def _attention(  # noqa: PLR0913  the signature is torch's
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False,  # noqa: FBT001, FBT002
) -> Tensor:  # fmt: skip
    """Compute attention of shapes (..., queries, width) and (..., keys, width) without dropout."""
    del dropout_p  # what is exported is evaluation
    if enable_gqa:
        key, value = (_repeated(each, query.shape[-3]) for each in (key, value))
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * factor) @ key.transpose(-2, -1)
    mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril() if is_causal else attn_mask
    if mask is None:
        return scores.softmax(-1) @ value
    scores = scores.masked_fill(~mask, -_INFINITE) if mask.dtype == torch.bool else scores + mask
    # Not by their maximum, which OpenVINO does not find to be infinite.
    is_hidden = (scores == -_INFINITE).all(-1, keepdim=True)
    return scores.softmax(-1).masked_fill(is_hidden, 0.0) @ value


def _repeated(heads: Tensor, count: int) -> Tensor:
    """Return as many heads as there are of queries, each group's head repeated."""
    return heads.repeat_interleave(count // heads.shape[-3], -3)
