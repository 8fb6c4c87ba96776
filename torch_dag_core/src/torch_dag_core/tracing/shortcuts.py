"""Calls on tensors without data whose result is known without running them.

Torch takes up to milliseconds for some of these, and imports its compiler for the first of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from torch_dag_core.tracing.recording import Live

_ARITHMETIC = frozenset({
    "add", "__add__", "__radd__", "sub", "__sub__", "__rsub__", "mul", "__mul__", "__rmul__", "div", "true_divide",
    "__truediv__", "__rtruediv__", "neg", "__neg__", "abs", "exp", "log", "sqrt", "rsqrt", "sin", "cos", "tanh",
    "sigmoid", "relu", "relu6", "silu", "gelu", "hardswish", "hardsigmoid", "mish", "erf", "reciprocal", "square",
    "elu", "leaky_relu", "selu", "softplus", "logsigmoid", "hardtanh", "maximum", "minimum", "clamp",
})  # fmt: skip
"""Elementwise functions: like the largest operand where every other one is a number, or broadcasts to it."""
_FOLLOWING = frozenset({
    "batch_norm", "layer_norm", "group_norm", "rms_norm", "instance_norm", "softmax", "log_softmax", "roll", "flip",
})  # fmt: skip
"""Functions whose other operands have no say in shape and type."""
_SETTINGS = frozenset({"approximate", "min", "max", "negative_slope", "alpha", "beta", "threshold"})


Rule: TypeAlias = Callable[[tuple[Live, ...], dict[str, Live]], Live]


def known_result(name: str, args: tuple[Live, ...], kwargs: dict[str, Live]) -> Live:
    """Return what a call gives, None where only torch knows."""
    rule = _RULES.get(name)
    if rule is None or not args or kwargs.get("out") is not None:
        return None
    operands = args[0] if isinstance(args[0], (tuple, list)) else args[:1]
    return rule(args, kwargs) if operands and all(map(_is_blank_float, operands)) else None


def _is_blank_float(operand: Live) -> bool:
    return isinstance(operand, Tensor) and operand.is_meta and operand.is_floating_point()


def _elementwise(args: tuple[Live, ...], kwargs: dict[str, Live]) -> Tensor | None:
    if any(value is not False and key not in _SETTINGS for key, value in kwargs.items()):
        return None
    operands = (*args, *kwargs.values())
    largest = max((operand for operand in operands if isinstance(operand, Tensor)), key=Tensor.numel)
    return largest.clone() if all(_broadcasts(operand, largest) for operand in operands) else None


def _broadcasts(operand: Live, largest: Tensor) -> bool:
    if not isinstance(operand, Tensor):
        return operand is False or operand is None or type(operand) in (int, float, str)
    return operand.is_meta and operand.dtype == largest.dtype and _fits(operand.shape, largest.shape)


def _fits(shape: Sequence[int], larger: Sequence[int]) -> bool:
    """Tell whether a shape broadcasts to a larger one without changing it."""
    return len(shape) <= len(larger) and all(n in (1, m) for n, m in zip(shape[::-1], larger[::-1], strict=False))


def _following(args: tuple[Live, ...], kwargs: dict[str, Live]) -> Tensor | None:
    has_type = kwargs.get("dtype") is not None or any(isinstance(value, torch.dtype) for value in args)
    return args[0].clone() if isinstance(args[0], Tensor) and not has_type else None


def _linear(args: tuple[Live, ...], kwargs: dict[str, Live]) -> Tensor | None:
    x, weight = args[0], args[1] if len(args) > 1 else kwargs["weight"]
    if not isinstance(x, Tensor) or not isinstance(weight, Tensor):
        return None
    if weight.dim() != 2 or x.dim() == 0 or x.shape[-1] != weight.shape[1] or x.dtype != weight.dtype:
        return None
    return torch.empty((*x.shape[:-1], weight.shape[0]), dtype=x.dtype, device=x.device)


def _cat(args: tuple[Live, ...], kwargs: dict[str, Live]) -> Tensor | None:
    dim = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    if not isinstance(args[0], (tuple, list)) or not isinstance(dim, int) or kwargs.keys() - {"dim"}:
        return None
    tensors = [tensor for tensor in args[0] if isinstance(tensor, Tensor)]
    shapes = [list(tensor.shape) for tensor in tensors]
    rank = len(shapes[0])
    if any(len(shape) != rank for shape in shapes) or not -rank <= dim < rank:
        return None
    sizes = [shape.pop(dim) for shape in shapes]
    if any(shape != shapes[0] for shape in shapes) or any(tensor.dtype != tensors[0].dtype for tensor in tensors):
        return None
    shapes[0].insert(dim % rank, sum(sizes))
    return torch.empty(shapes[0], dtype=tensors[0].dtype, device="meta")


def _attention(args: tuple[Live, ...], kwargs: dict[str, Live]) -> Tensor | None:
    query, key, value = args[:3] if len(args) > 2 else (None, None, None)
    mask = args[3] if len(args) > 3 else kwargs.get("attn_mask")
    if not (isinstance(query, Tensor) and isinstance(key, Tensor) and isinstance(value, Tensor)):
        return None
    batch, queries, keys, width = query.shape[:-2], query.shape[-2], key.shape[-2], query.shape[-1]
    if key.shape != (*batch, keys, width) or value.shape[:-1] != (*batch, keys):
        return None
    if any(x.dtype != query.dtype for x in (key, value)):
        return None
    if isinstance(mask, Tensor) and not _fits(mask.shape, (*batch, queries, keys)):
        return None
    return torch.empty((*batch, queries, value.shape[-1]), dtype=query.dtype, device=query.device)


def _recurrent(args: tuple[Live, ...], kwargs: dict[str, Live]) -> Live:
    """Torch has no rule for these, and running them on zeros takes seconds."""
    if kwargs or len(args) != 9:  # a packed sequence
        return None
    x, state, bidirectional = args[0], args[1], args[7]
    parts = [part for part in (state if isinstance(state, (tuple, list)) else (state,)) if isinstance(part, Tensor)]
    if not isinstance(x, Tensor) or not parts:
        return None
    output = x.new_empty((*x.shape[:-1], parts[0].shape[-1] * (2 if bidirectional else 1)))
    return (output, *(part.clone() for part in parts))


def _grouped_product(args: tuple[Live, ...], kwargs: dict[str, Live]) -> Tensor | None:
    """Torch's own rule takes the types of its kernels for CUDA alone."""
    x, y = args[0], args[1] if len(args) > 1 else kwargs.get("mat_b", kwargs.get("mat2"))
    offsets = args[2] if len(args) > 2 else kwargs.get("offs")
    if not isinstance(x, Tensor) or not isinstance(y, Tensor) or kwargs.get("out_dtype") is not None or len(args) > 3:
        return None
    has_groups = x.dim() == 3 or y.dim() == 3
    groups = [offsets.shape[0]] if isinstance(offsets, Tensor) and x.dim() == y.dim() else []
    groups = [x.shape[0]] if x.dim() == 3 and y.dim() == 3 else groups
    if x.shape[-1] != y.shape[-2] or x.dtype != y.dtype or not (has_groups or groups):
        return None
    return torch.empty((*groups, x.shape[-2], y.shape[-1]), dtype=x.dtype, device=x.device)


_RULES: dict[str, Rule] = {
    **dict.fromkeys(_ARITHMETIC, _elementwise), **dict.fromkeys(_FOLLOWING, _following), "linear": _linear,
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
    "scaled_dot_product_attention": _attention, "grouped_mm": _grouped_product, "_grouped_mm": _grouped_product,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
}  # fmt: skip
