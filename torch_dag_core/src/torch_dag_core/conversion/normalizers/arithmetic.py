"""Normalizers of elementwise functions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from torch_dag_core.conversion.builder import PASS, Call, Emitted, Operand, Value, draft
from torch_dag_core.conversion.normalizers.declaration import normalizes
from torch_dag_core.graph.values import DTYPES
from torch_dag_core.ops import arithmetic
from torch_dag_core.ops.arithmetic import (
    Add,
    Binary,
    Cast,
    CastLike,
    Clamp,
    Detach,
    Div,
    MaskedFill,
    Mul,
    Where,
)
from torch_dag_core.plugins.declarations import gather
from torch_dag_core.plugins.registry import OpSpec

_BINARY = [spec.target for spec in gather(arithmetic.__name__, OpSpec) if issubclass(spec.target, Binary)]
_OPS = {name: op for op in _BINARY for name in op.spellings}
_REFLECTED = {name: op for op in _BINARY for name in op.reflected}


@normalizes(*_OPS)
def binary(
    call: Call, input: Operand, other: Operand, *, alpha: complex = 1, rounding_mode: str | None = None
) -> Emitted:  # fmt: skip
    """Emit the op of a function of two arguments, either of which may be a constant.

    ``other`` is multiplied by ``alpha`` first.
    """
    op = _OPS[call.name]
    if rounding_mode is not None:
        if rounding_mode != "floor":
            return PASS
        op = _OPS["floor_divide"]
    if alpha == 1:
        return _emit(call, op, input, other)
    if isinstance(other, Value):
        return _emit(call, op, input, call.emit(Mul(scalar=alpha), other, stem="scaled"))
    return _emit(call, op, input, other * alpha) if isinstance(other, (int, float, complex)) else PASS


@normalizes(*_REFLECTED)
def reflected(call: Call, input: Operand, other: Operand, *, alpha: complex = 1) -> Emitted:
    """Emit the op with swapped arguments, as for ``2 - x``."""
    if alpha != 1:
        return PASS
    return _emit(call, _REFLECTED[call.name], other, input)


def _emit(call: Call, op: type[Binary], first: Operand, second: Operand) -> Emitted:
    stem = op.__name__.lower()
    if isinstance(first, Value):
        if isinstance(second, Value):
            return call.emit(op(), first, second, stem=stem)
        return call.emit(draft(op, scalar=second), first, stem=stem)
    if isinstance(second, Value):
        return call.emit(draft(op, scalar=first, scalar_first=not op.commutative), second, stem=stem)
    return PASS


_FUSED: dict[str, type[Binary]] = {"addcmul": Mul, "addcdiv": Div}


@normalizes(*_FUSED)
def fused_add(call: Call, input: Value, first: Value, second: Value, *, value: complex = 1) -> Value:
    """Emit ``input + value * first * second``, or the quotient for ``addcdiv``."""
    product = call.emit(_FUSED[call.name](), first, second)
    scaled = product if value == 1 else call.emit(Mul(scalar=value), product, stem="mul")
    return call.emit(Add(), input, scaled, stem="add")


@normalizes("where")
def where(call: Call, condition: Value, input: Operand = None, other: Operand = None) -> Emitted:
    """Emit `Where`, with constants as its fields."""
    if input is None and other is None:
        return PASS
    constants = {name: v for name, v in (("x", input), ("y", other)) if not isinstance(v, Value)}
    operands = [value for value in (input, other) if isinstance(value, Value)]
    return call.emit(draft(Where, **constants), condition, *operands)


@normalizes("masked_fill")
def masked_fill(call: Call, input: Value, mask: Value, value: Operand) -> Value:
    """Emit `MaskedFill` for a constant, `Where` for a tensor."""
    if isinstance(value, Value):
        return call.emit(Where(), mask, value, input)
    return call.emit(draft(MaskedFill, value), input, mask)


@normalizes("clamp", "clip")
def clamp(call: Call, input: Value, min: Operand = None, max: Operand = None) -> Emitted:
    """Emit `Clamp` if the limits are constants."""
    return _clamped(call, input, min, max)


@normalizes("clamp_min")
def clamp_min(call: Call, input: Value, min: Operand) -> Emitted:
    """Emit `Clamp` without an upper limit."""
    return _clamped(call, input, min, None)


@normalizes("clamp_max")
def clamp_max(call: Call, input: Value, max: Operand) -> Emitted:
    """Emit `Clamp` without a lower limit."""
    return _clamped(call, input, None, max)


def _clamped(call: Call, input: Value, least: Operand, most: Operand) -> Emitted:
    if isinstance(least, Value) or isinstance(most, Value):
        return PASS
    return call.emit(draft(Clamp, least, most), input)


_CASTS = {
    "float": torch.float32, "double": torch.float64, "half": torch.float16, "bfloat16": torch.bfloat16,
    "int": torch.int32, "long": torch.int64, "short": torch.int16, "bool": torch.bool, "byte": torch.uint8,
    "char": torch.int8,
}  # fmt: skip


@normalizes(*_CASTS)
def cast(call: Call, input: Value, **_: Operand) -> Value:
    """Emit `Cast` for ``x.float()`` and similar methods."""
    return call.emit(Cast(_CASTS[call.name]), input)


@normalizes("to", "type")
def to(call: Call, input: Value, *args: Operand, **kwargs: Operand) -> Value:
    """Emit `Cast` or `CastLike` if the dtype may change; a change of device alone is ignored."""
    given = [*args, *kwargs.values()]
    dtypes = [value for value in given if isinstance(value, torch.dtype) and value in DTYPES.values()]
    if dtypes:
        return call.emit(Cast(dtypes[0]), input)
    like = next((value for value in given if isinstance(value, Value)), None)
    return input if like is None else call.emit(CastLike(), input, like)


@normalizes("type_as")
def type_as(call: Call, input: Value, other: Value) -> Value:
    """Emit `CastLike`."""
    return call.emit(CastLike(), input, other)


@normalizes("clone", "contiguous", "cpu", "cuda", "alias", "lift_fresh", "resolve_conj", "resolve_neg", "requires_grad")
def unchanged(call: Call, input: Value, *_: Operand, **__: Operand) -> Value:
    """Return the operand: a graph has no in-place writes, so copies and memory layouts make no difference."""
    del call
    return input


@normalizes("detach", "data")
def detach(call: Call, input: Value, *_: Operand) -> Value:
    """Emit `Detach`."""
    return call.emit(Detach(), input)


_ACTIVATIONS: dict[str, tuple[Callable[..., nn.Module], tuple[str, ...]]] = {
    "relu": (nn.ReLU, ()), "relu6": (nn.ReLU6, ()), "sigmoid": (nn.Sigmoid, ()), "tanh": (nn.Tanh, ()),
    "silu": (nn.SiLU, ()), "mish": (nn.Mish, ()), "hardswish": (nn.Hardswish, ()),
    "hardsigmoid": (nn.Hardsigmoid, ()), "gelu": (nn.GELU, ("approximate",)), "elu": (nn.ELU, ("alpha",)),
    "selu": (nn.SELU, ()), "leaky_relu": (nn.LeakyReLU, ("negative_slope",)), "softsign": (nn.Softsign, ()),
    "softplus": (nn.Softplus, ("beta", "threshold")), "logsigmoid": (nn.LogSigmoid, ()), "glu": (nn.GLU, ("dim",)),
    "tanhshrink": (nn.Tanhshrink, ()), "celu": (nn.CELU, ("alpha",)),
    "hardtanh": (nn.Hardtanh, ("min_val", "max_val")), "threshold": (nn.Threshold, ("threshold", "value")),
    "hardshrink": (nn.Hardshrink, ("lambd",)), "softshrink": (nn.Softshrink, ("lambd",)),
}  # fmt: skip


@normalizes(*_ACTIVATIONS)
def activation(call: Call, input: Value, *args: Operand, inplace: bool = False, **kwargs: Operand) -> Value:
    """Emit the module of a functional activation."""
    del inplace
    module, names = _ACTIVATIONS[call.name]
    return call.emit(module(**dict(zip(names, args, strict=False)), **kwargs), input)


@normalizes("softmax", "log_softmax")
def softmax(
    call: Call, input: Value, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | int | None = None
) -> Value:  # fmt: skip
    """Emit `nn.Softmax` or `nn.LogSoftmax`, after a `Cast` if a dtype is given."""
    if dtype is not None and not isinstance(dtype, int):
        input = call.emit(Cast(dtype), input, stem="cast")
    return call.emit((nn.Softmax if call.name == "softmax" else nn.LogSoftmax)(dim=dim), input)
