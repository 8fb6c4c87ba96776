"""Normalizers of matrix products, convolutions, embeddings and attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, cast

import torch
from torch import nn

from torch_dag_core.conversion.builder import PASS, Call, Emitted, Operand, Value
from torch_dag_core.conversion.joining import ByMode
from torch_dag_core.conversion.normalizers.declaration import normalizes
from torch_dag_core.conversion.normalizers.promotion import promote
from torch_dag_core.ops.arithmetic import Add, Mul
from torch_dag_core.ops.contraction import (
    Convolution,
    Einsum,
    EmbeddingFunction,
    LinearFunction,
    Matmul,
    ScaledDotProductAttention,
    TransposedConvolution,
)
from torch_dag_core.ops.layout import Permute

_HALF = (torch.float16, torch.bfloat16)
Window: TypeAlias = "int | tuple[int, ...] | list[int]"
_CONVOLUTIONS: dict[str, Callable[..., nn.Module]] = {"conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "conv3d": nn.Conv3d}
_TRANSPOSED = {
    "conv_transpose1d": nn.ConvTranspose1d,
    "conv_transpose2d": nn.ConvTranspose2d,
    "conv_transpose3d": nn.ConvTranspose3d,
}


@normalizes("matmul", "__matmul__", "bmm", "mm")
def matmul(call: Call, input: Value, other: Value, **_: Operand) -> Value:
    """Emit `Matmul` for every kind of matrix product."""
    return call.emit(Matmul(), input, other, stem="matmul")


@normalizes("__rmatmul__")
def reflected_matmul(call: Call, input: Value, other: Value) -> Value:
    """Emit `Matmul` with swapped operands."""
    return call.emit(Matmul(), other, input, stem="matmul")


@normalizes("addmm", "baddbmm")
def addmm(call: Call, input: Value, *factors: Value, beta: float = 1, alpha: float = 1, **named: Value) -> Emitted:
    """Emit ``beta * input + alpha * (first @ second)``; factors may be named: ``mat1, mat2`` or ``batch1, batch2``.

    In half precision the sum is rounded once, so the call stays one vertex: `LinearFunction` where it is that.
    """
    factors = (*factors, *(named[name] for name in sorted(named)))
    if call.dtype in _HALF:
        if beta != 1 or alpha != 1 or [len(value.shape or ()) for value in (input, *factors)] != [1, 2, 2]:
            return PASS
        weight = call.emit(Permute((1, 0)), factors[1], stem="transpose")
        return call.emit(LinearFunction(), factors[0], weight, input, stem="linear")
    product = call.emit(Matmul(), *factors, stem="matmul")
    scaled = product if alpha == 1 else call.emit(Mul(scalar=alpha), product, stem="mul")
    added = input if beta == 1 else call.emit(Mul(scalar=beta), input, stem="mul")
    return call.emit(Add(), added, scaled, stem="add")


@normalizes("einsum")
def einsum(call: Call, equation: str, *operands: Operand) -> Value:
    """Emit `Einsum`; the operands may be given one by one or as a list."""
    flat = operands[0] if len(operands) == 1 and isinstance(operands[0], (tuple, list)) else operands
    return call.emit(Einsum(equation.replace(" ", "")), *cast("tuple[Value, ...]", tuple(flat)))


@normalizes("linear")
def linear(call: Call, input: Value, weight: Value, bias: Value | None = None) -> Value:
    """Emit `nn.Linear` if a module of the model owns weight and bias, otherwise `LinearFunction`."""
    out, width = weight.shape or (0, 0)

    def make() -> nn.Module:
        return nn.Linear(width, out, bias=bias is not None, device="meta")

    promoted = promote(call, input, {"weight": weight, "bias": bias}, make, "linear")
    return promoted or call.emit(LinearFunction(), input, weight, *([bias] if bias is not None else []))


def _window(value: Window, rank: int) -> tuple[int, ...]:
    """Return one number per dimension of a window."""
    items = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return items * rank if len(items) == 1 else items


@normalizes(*_CONVOLUTIONS)
def convolution(
    call: Call, input: Value, weight: Value, bias: Value | None = None, stride: Window = 1,
    padding: Window | str = 0, dilation: Window = 1, groups: int = 1,
) -> Value:  # fmt: skip
    """Emit a convolution module if a module of the model owns weight and bias, otherwise `Convolution`."""
    shape = weight.shape or ()
    rank = len(shape) - 2
    stride, dilation = _window(stride, rank), _window(dilation, rank)
    padding = padding if isinstance(padding, str) else _window(padding, rank)

    def make() -> nn.Module:
        return _CONVOLUTIONS[call.name](
            shape[1] * groups, shape[0], tuple(shape[2:]), stride, padding, dilation, groups,
            bias=bias is not None, device="meta",
        )  # fmt: skip

    promoted = promote(call, input, {"weight": weight, "bias": bias}, make, call.name)
    operands = (input, weight, *([bias] if bias is not None else []))
    return promoted or call.emit(Convolution(stride, padding, dilation, groups), *operands)


@normalizes(*_TRANSPOSED)
def transposed_convolution(
    call: Call, input: Value, weight: Value, bias: Value | None = None, stride: Window = 1, padding: Window = 0,
    output_padding: Window = 0, groups: int = 1, dilation: Window = 1,
) -> Value:  # fmt: skip
    """Emit `TransposedConvolution`, with weight and bias as operands."""
    rank = len(weight.shape or ()) - 2
    steps, pads, ends, gaps = (_window(window, rank) for window in (stride, padding, output_padding, dilation))
    op = TransposedConvolution(steps, pads, ends, groups, gaps)
    return call.emit(op, input, weight, *([bias] if bias is not None else []))


@normalizes("embedding")
def embedding(
    call: Call, input: Value, weight: Value, padding_idx: int | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Emitted:  # fmt: skip
    """Emit `EmbeddingFunction`, unless an option is set that it lacks."""
    del norm_type
    if max_norm is not None or scale_grad_by_freq or sparse:
        return PASS
    return call.emit(EmbeddingFunction(padding_idx), input, weight)


@normalizes("prelu")
def prelu(call: Call, input: Value, weight: Value) -> Emitted:
    """Emit `nn.PReLU` if a module of the model owns the slopes."""
    count = (weight.shape or (1,))[0]
    promoted = promote(call, input, {"weight": weight}, lambda: nn.PReLU(count, device="meta"), "prelu")
    return PASS if promoted is None else promoted


@normalizes("scaled_dot_product_attention")
def attention(
    call: Call, query: Value, key: Value, value: Value, attn_mask: Value | None = None,
    dropout_p: float | ByMode[float] = 0.0, is_causal: bool = False, scale: float | None = None,
    enable_gqa: bool = False,
) -> Emitted:  # fmt: skip
    """Emit `ScaledDotProductAttention`, unless there is dropout in evaluation mode."""
    if isinstance(dropout_p, ByMode):
        if dropout_p.evaluation != 0.0:
            return PASS
        dropout_p = dropout_p.training
    elif dropout_p != 0.0:
        return PASS
    op = ScaledDotProductAttention(dropout_p, is_causal, scale, enable_gqa)
    return call.emit(op, query, key, value, *([attn_mask] if attn_mask is not None else []), stem="attention")
