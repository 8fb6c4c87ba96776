"""Conversion of module classes of torch that are not ops: into nothing, another op, or several ops."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from torch_dag_core.conversion.builder import Call, Value
from torch_dag_core.conversion.normalizers.layout import reshape_target
from torch_dag_core.ops.layout import Reshape
from torch_dag_core.ops.stochastic import StochasticDepth
from torch_dag_core.plugins.declarations import gather
from torch_dag_core.plugins.registry import AtomicSpec


def _nothing(call: Call, module: nn.Module, input: Value, *_: Any, **__: Any) -> Value:  # noqa: A002
    del call, module
    return input


def _reshape(call: Call, module: nn.Module, input: Value) -> Value:  # noqa: A002
    del module
    return call.emit(Reshape(reshape_target(call.shape or ())), input)


def _stochastic_depth(call: Call, module: Any, input: Value) -> Value:  # noqa: A002
    return call.emit(StochasticDepth(float(module.p), str(module.mode)), input, path=call.path)


def _multi_head_attention(  # noqa: PLR0913, PLR0917
    module: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
    need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True,  # noqa: FBT001, FBT002
    is_causal: bool = False,  # noqa: FBT001, FBT002
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Compute the function of `nn.MultiheadAttention` (arXiv:1706.03762) by calls that become ops of the vocabulary."""
    first = 0 if module.batch_first else 1
    heads, width = module.num_heads, module.head_dim
    projected = _projections(module, query, key, value)
    batch = query.shape[first]
    q, k, v = (
        (x if module.batch_first else x.transpose(0, 1)).reshape(batch, -1, heads, width).transpose(1, 2)
        for x in projected
    )
    mask = _mask(attn_mask, key_padding_mask, heads, q)
    dropout = module.dropout if module.training else 0.0
    if need_weights:
        scores = (q * width**-0.5) @ k.transpose(-2, -1)
        weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
        weights = functional.dropout(weights, module.dropout, module.training)
        mixed = weights @ v
    else:
        weights = None
        mixed = functional.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal and mask is None)
    # The batch is dimension 1 in memory, as in torch, because later random ops fill tensors in memory order.
    mixed = mixed.permute(2, 0, 1, 3).reshape(-1, batch, heads * width)
    result = module.out_proj(mixed)
    result = result.transpose(0, 1) if module.batch_first else result
    return result, weights.mean(1) if weights is not None and average_attn_weights else weights


def _projections(module: Any, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
    if module.in_proj_weight is None:
        weights: Any = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    elif query is key and key is value:
        return functional.linear(query, module.in_proj_weight, module.in_proj_bias).chunk(3, dim=-1)
    else:
        weights = module.in_proj_weight.chunk(3)
    biases = (None, None, None) if module.in_proj_bias is None else module.in_proj_bias.chunk(3)
    return tuple(functional.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True))


def _mask(attention: Tensor | None, padding: Tensor | None, heads: int, like: Tensor) -> Tensor | None:
    """Merge both masks into one that is added to the scores (batch, heads, queries, keys)."""
    parts = []
    if attention is not None:
        attention = attention if attention.dim() == 2 else attention.unflatten(0, (-1, heads))  # type: ignore[no-untyped-call]
        parts.append(_additive(attention, like))
    if padding is not None:
        parts.append(_additive(padding[:, None, None, :], like))
    return None if not parts else parts[0] if len(parts) == 1 else parts[0] + parts[1]


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))


def _transposed_convolution(module: Any, input: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: A002
    """Follow torch's own code where the caller gives a size, which decides on the padding at the end."""
    result: Tensor = module(input) if output_size is None else type(module).forward(module, input, output_size)
    return result


def _fake_quantized(module: Any, input: Tensor) -> Tensor:  # noqa: A002
    """Follow a quantiser with a fixed scale.

    Raises:
        RuntimeError: its observer is on, so that it changes its scale by the data.
    """
    if module.observer_enabled[0] == 1:
        message = (
            f"{type(module).__name__} observes the data and changes its scale by it; "
            "fix it first with model.apply(torch.ao.quantization.disable_observer)"
        )
        raise RuntimeError(message)
    result: Tensor = type(module).forward(module, input)
    return result


def _is_plain(module: Any) -> bool:
    return module.bias_k is None and module.bias_v is None and not module.add_zero_attn


IDENTITY = AtomicSpec(target=nn.Identity, convert=_nothing)
FLATTEN = AtomicSpec(target=nn.Flatten, convert=_reshape)
UNFLATTEN = AtomicSpec(target=nn.Unflatten, convert=_reshape)
MULTIHEAD_ATTENTION = AtomicSpec(target=nn.MultiheadAttention, trace_as=_multi_head_attention, accepts=_is_plain)
TRANSPOSED_CONVOLUTIONS = tuple(
    AtomicSpec(target=kind, trace_as=_transposed_convolution)
    for kind in (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
)
FAKE_QUANTIZERS = tuple(
    AtomicSpec(target=f"torch.ao.quantization.fake_quantize.{name}", trace_as=_fake_quantized)
    for name in ("FakeQuantize", "FusedMovingAvgObsFakeQuantize", "FixedQParamsFakeQuantize")
)
STOCHASTIC_DEPTH = AtomicSpec(target="torchvision.ops.stochastic_depth.StochasticDepth", convert=_stochastic_depth)


def atomic_modules() -> tuple[AtomicSpec, ...]:
    """Return the specifications of these classes."""
    return gather(__name__, AtomicSpec)
