"""Calls whose result is as large as their first operand and of its type: they need not be run to know that.

Torch takes up to milliseconds for some of them on tensors without data.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

_ARITHMETIC = frozenset({
    "add", "__add__", "__radd__", "sub", "__sub__", "__rsub__", "mul", "__mul__", "__rmul__", "div", "true_divide",
    "__truediv__", "__rtruediv__", "neg", "__neg__", "abs", "exp", "log", "sqrt", "rsqrt", "sin", "cos", "tanh",
    "sigmoid", "relu", "relu6", "silu", "gelu", "hardswish", "hardsigmoid", "mish", "erf", "reciprocal", "square",
})  # fmt: skip
"""Elementwise functions: every other operand must be a number, or a tensor just like the first."""
_NORMALIZING = frozenset({"batch_norm", "layer_norm", "group_norm", "rms_norm", "instance_norm"})
"""Functions whose other operands have no say in shape and type."""


def is_like_first(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Tell whether the result of a call is a fresh tensor like its first operand."""
    if not args or not isinstance(args[0], Tensor) or not args[0].is_meta or not args[0].is_floating_point():
        return False
    if name in _NORMALIZING:
        return "out" not in kwargs
    if name not in _ARITHMETIC or any(value is not False for key, value in kwargs.items() if key != "approximate"):
        return False
    return all(_is_like(other, args[0]) for other in args[1:])


def _is_like(other: Any, first: Tensor) -> bool:
    if isinstance(other, Tensor):
        return other.is_meta and other.shape == first.shape and other.dtype == first.dtype
    return other is False or type(other) in (int, float)
