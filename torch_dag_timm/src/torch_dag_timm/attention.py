"""Conversion of timm's plain self-attention, as in its ViT and DeiT-3 models, into the core's composite op."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from torch_dag_core.conversion.builder import Call, Value
from torch_dag_core.errors import TraceError
from torch_dag_core.ops.attention import Attention
from torch_dag_core.ops.creation import Full
from torch_dag_core.ops.layout import Triangle
from torch_dag_core.plugins.registry import AtomicSpec, qualified_name
from torch_dag_timm.examples import examples

_CLASS = "timm.layers.attention.Attention"
_NORMS = {
    "torch.nn.modules.linear.Identity": "none",
    "torch.nn.modules.normalization.LayerNorm": "layer_norm",
    "timm.layers.norm.LayerNorm": "layer_norm",
    "torch.nn.modules.normalization.RMSNorm": "rms_norm",
    "timm.layers.norm.RmsNorm": "rms_norm",
}
_UNUSED_EPS = 1e-6
_TOKENS = (2, 5, 12)
_EXAMPLES = examples(
    _CLASS,
    ((12, 3), {}, _TOKENS),
    ((12, 3), {"qkv_bias": True, "attn_drop": 0.3, "proj_drop": 0.3}, _TOKENS),
    ((12, 3), {"qk_norm": True, "norm_layer": nn.LayerNorm, "proj_bias": False}, _TOKENS),
)


def _norm(module: nn.Module) -> str | None:
    """Return the name of this norm in the core's op; None if the op does not support it."""
    kind = _NORMS.get(qualified_name(type(module)))
    weights = {"none": (), "layer_norm": ("weight", "bias"), "rms_norm": ("weight",)}.get(kind or "", ())
    return kind if all(getattr(module, name, None) is not None for name in weights) else None


def _norms(module: Any) -> tuple[nn.Module, nn.Module, nn.Module]:
    return module.q_norm, module.k_norm, getattr(module, "norm", nn.Identity())


def _eps(module: Any) -> set[Any]:
    return {norm.eps for norm in _norms(module) if hasattr(norm, "eps")}


def is_plain(module: Any) -> bool:
    """Tell whether an attention module consists of a fused projection, optional norms, and nothing else."""
    kinds = [_norm(norm) for norm in _norms(module)]
    return (
        None not in kinds
        and kinds[0] == kinds[1]
        and len(_eps(module)) <= 1
        and getattr(module, "gate", None) is None
        and all(type(part) is nn.Linear for part in (module.qkv, module.proj))
        and all(type(part) is nn.Dropout for part in (module.attn_drop, module.proj_drop))
    )


def convert(
    call: Call,
    module: Any,
    x: Value,
    attn_mask: Value | None = None,
    is_causal: bool = False,  # noqa: FBT001, FBT002
) -> Value:
    """Emit one attention op that holds the module's own projections and norms."""
    op = core_attention(module)
    if is_causal:
        attn_mask = _causal_mask(call, x)
    elif attn_mask is not None and attn_mask.dtype == torch.bool and not op.fused:
        message = f"{call.path!r} adds a mask of bools, called at {call.source}; pass one of floats (0 and -inf)"
        raise TraceError(message)
    return call.emit(op, x, *(() if attn_mask is None else (attn_mask,)), path=call.path)


def core_attention(module: Any) -> Attention:
    """Return the core's op with the parameters of timm's module."""
    query, _, out = _norms(module)
    with torch.device("meta"):
        op = Attention(
            module.qkv.in_features, module.num_heads, module.head_dim, module.proj.out_features,
            scale=float(module.scale), qkv_bias=module.qkv.bias is not None, proj_bias=module.proj.bias is not None,
            qk_norm=_norm(query) or "none", out_norm=_norm(out) or "none",
            norm_eps=next(iter(_eps(module)), _UNUSED_EPS), attn_drop=module.attn_drop.p,
            proj_drop=module.proj_drop.p, fused=bool(module.fused_attn),
        )  # fmt: skip
    for name, parameter in module.named_parameters(remove_duplicate=False):
        owner, _, last = name.rpartition(".")
        op.get_submodule(owner).register_parameter(last, parameter)
    return op


def _causal_mask(call: Call, x: Value) -> Value:
    """Emit a mask (tokens, tokens) with minus infinity above the diagonal and zeros elsewhere."""
    tokens = (x.shape or (0, 0))[1]
    full = call.emit(Full((tokens, tokens), float("-inf")), x, path=f"{call.path}_mask_values")
    return call.emit(Triangle(1, upper=True), full, path=f"{call.path}_mask")


ATTENTION = AtomicSpec(target=_CLASS, convert=convert, accepts=is_plain, examples=_EXAMPLES)
