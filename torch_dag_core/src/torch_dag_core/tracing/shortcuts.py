"""Calls on tensors without data whose result is known without running them.

Torch takes up to milliseconds for some of these, and imports its compiler for the first of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_ARITHMETIC = frozenset({
    "add", "__add__", "__radd__", "sub", "__sub__", "__rsub__", "mul", "__mul__", "__rmul__", "div", "true_divide",
    "__truediv__", "__rtruediv__", "neg", "__neg__", "abs", "exp", "log", "sqrt", "rsqrt", "sin", "cos", "tanh",
    "sigmoid", "relu", "relu6", "silu", "gelu", "hardswish", "hardsigmoid", "mish", "erf", "reciprocal", "square",
    "elu", "leaky_relu", "selu", "softplus", "logsigmoid", "hardtanh", "maximum", "minimum", "clamp",
})  # fmt: skip
"""Elementwise functions: like the first operand where every other one is a number, or a tensor just like it."""
_FOLLOWING = frozenset(
    {"batch_norm", "layer_norm", "group_norm", "rms_norm", "instance_norm", "softmax", "log_softmax"}
)
"""Functions whose other operands have no say in shape and type."""
_SETTINGS = frozenset({"approximate", "min", "max", "negative_slope", "alpha", "beta", "threshold"})


def known_result(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return what a call gives, None where only torch knows."""
    rule = _RULES.get(name)
    if rule is None or not args or not isinstance(args[0], Tensor):
        return None
    if not args[0].is_meta or not args[0].is_floating_point() or kwargs.get("out") is not None:
        return None
    return rule(args, kwargs)


Rule = Callable[[tuple[Any, ...], dict[str, Any]], Any]


def _elementwise(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    first = args[0]
    if any(value is not False and key not in _SETTINGS for key, value in kwargs.items()):
        return None
    if not all(_is_like(other, first) for other in (*args[1:], *kwargs.values())):
        return None
    return first.clone()  # type: ignore[no-any-return]


def _is_like(other: Any, first: Tensor) -> bool:
    if isinstance(other, Tensor):
        return other.is_meta and other.shape == first.shape and other.dtype == first.dtype
    return other is False or other is None or type(other) in (int, float, str)


def _following(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    has_type = kwargs.get("dtype") is not None or any(type(value).__name__ == "dtype" for value in args)
    return None if has_type else args[0].clone()


def _linear(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    x, weight = args[0], args[1] if len(args) > 1 else kwargs["weight"]
    if weight.dim() != 2 or x.dim() == 0 or x.shape[-1] != weight.shape[1] or x.dtype != weight.dtype:
        return None
    return torch.empty((*x.shape[:-1], weight.shape[0]), dtype=x.dtype, device=x.device)


def _attention(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    del kwargs
    if len(args) < 3 or any(x.shape[:-2] != args[0].shape[:-2] or x.dtype != args[0].dtype for x in args[1:3]):
        return None
    query, _, value = args[:3]
    return torch.empty((*query.shape[:-1], value.shape[-1]), dtype=query.dtype, device=query.device)


def _recurrent(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Torch has no rule for these, and running them on zeros takes seconds."""
    if kwargs or len(args) != 9:  # a packed sequence
        return None
    x, state, bidirectional = args[0], args[1], args[7]
    hidden = state if isinstance(state, Tensor) else state[0]
    output = x.new_empty((*x.shape[:-1], hidden.shape[-1] * (2 if bidirectional else 1)))
    return (output, *(part.clone() for part in ([state] if isinstance(state, Tensor) else state)))


_RULES: dict[str, Rule] = {
    **dict.fromkeys(_ARITHMETIC, _elementwise), **dict.fromkeys(_FOLLOWING, _following), "linear": _linear,
    "scaled_dot_product_attention": _attention,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
}  # fmt: skip
