"""Calls on tensors without data whose result is known without running them.

Torch takes up to milliseconds for some of these, and imports its compiler for the first of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from torch_dag_core.tracing import layout_shortcuts, norm_shortcuts
from torch_dag_core.tracing.recording import Live

_ARITHMETIC = frozenset({
    "add", "__add__", "__radd__", "sub", "__sub__", "__rsub__", "mul", "__mul__", "__rmul__", "div", "true_divide",
    "__truediv__", "__rtruediv__", "neg", "__neg__", "abs", "exp", "log", "sqrt", "rsqrt", "sin", "cos", "tanh",
    "sigmoid", "gelu", "erf", "reciprocal", "square", "softplus", "logsigmoid", "maximum", "minimum", "clamp",
})  # fmt: skip
"""Elementwise functions: like the largest operand where every other one is a number, or broadcasts to it."""
_ACTIVATIONS = frozenset({
    "relu", "relu6", "silu", "hardswish", "hardsigmoid", "mish", "elu", "leaky_relu", "selu", "hardtanh",
})  # fmt: skip
"""The same; where a flag among the arguments is set, the function works in place."""
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
    # A constant among the operands has data; the result has none, and is like an operand that has none either.
    return largest.clone() if largest.is_meta and all(_broadcasts(operand, largest) for operand in operands) else None


def _broadcasts(operand: Live, largest: Tensor) -> bool:
    if not isinstance(operand, Tensor):
        return operand is False or operand is None or type(operand) in (int, float, str)
    return operand.dtype == largest.dtype and _fits(operand.shape, largest.shape)


def _fits(shape: Sequence[int], larger: Sequence[int]) -> bool:
    """Tell whether a shape broadcasts to a larger one without changing it."""
    return len(shape) <= len(larger) and all(n in (1, m) for n, m in zip(shape[::-1], larger[::-1], strict=False))


def _activation(args: tuple[Live, ...], kwargs: dict[str, Live]) -> Tensor | None:
    if isinstance(args[0], Tensor) and any(value is True for value in (*args[1:], kwargs.get("inplace"))):
        return args[0].zero_()  # any write has the effects that a trace can see
    return _elementwise(args, kwargs)


def _linear(args: tuple[Live, ...], kwargs: dict[str, Live]) -> Tensor | None:
    x, weight = args[0], args[1] if len(args) > 1 else kwargs["weight"]
    if not isinstance(x, Tensor) or not isinstance(weight, Tensor):
        return None
    if weight.dim() != 2 or x.dim() == 0 or x.shape[-1] != weight.shape[1] or x.dtype != weight.dtype:
        return None
    return torch.empty((*x.shape[:-1], weight.shape[0]), dtype=x.dtype, device=x.device)


def _product(args: tuple[Live, ...], kwargs: dict[str, Live]) -> Tensor | None:
    x, y = args[0], args[1] if len(args) == 2 else None
    if not isinstance(x, Tensor) or not isinstance(y, Tensor) or kwargs or x.dtype != y.dtype or not y.is_meta:
        return None
    if min(x.dim(), y.dim()) < 2 or x.shape[:-2] != y.shape[:-2] or x.shape[-1] != y.shape[-2]:
        return None
    return torch.empty((*x.shape[:-1], y.shape[-1]), dtype=x.dtype, device=x.device)


def _reduction(place: int, args: tuple[Live, ...], kwargs: dict[str, Live]) -> Tensor | None:
    """Follow a reduction that is given its dimensions at ``place``, and behind them whether they stay."""
    x, dims = args[0], args[place] if len(args) > place else kwargs.get("dim")
    keeps = args[place + 1] if len(args) > place + 1 else kwargs.get("keepdim", False)
    others = {key for key, value in kwargs.items() if value is not None} - {"dim", "keepdim", "p", "ord"}
    if not isinstance(x, Tensor) or not x.is_contiguous() or len(args) > place + 2 or others:
        return None
    given = dims if isinstance(dims, (tuple, list)) else (dims,)
    places = {dim % x.dim() for dim in given if isinstance(dim, int) and -x.dim() <= dim < x.dim()}
    if not given or len(places) != len(given) or not isinstance(keeps, bool):
        return None
    sizes = [1 if place in places else size for place, size in enumerate(x.shape) if keeps or place not in places]
    return torch.empty(sizes, dtype=x.dtype, device=x.device)


def _norm(args: tuple[Live, ...], kwargs: dict[str, Live]) -> Tensor | None:
    order = args[1] if len(args) > 1 else kwargs.get("p", kwargs.get("ord"))
    return _reduction(2, args, kwargs) if isinstance(order, (int, float)) else None  # others are for matrices alone


def _grid_sample(args: tuple[Live, ...], kwargs: dict[str, Live]) -> Tensor | None:
    given = dict(zip(("input", "grid", "mode", "padding_mode", "align_corners"), args, strict=False)) | kwargs
    x, grid, mode, padding = (given.get(name) for name in ("input", "grid", "mode", "padding_mode"))
    if not isinstance(x, Tensor) or not isinstance(grid, Tensor) or x.dtype != grid.dtype:
        return None
    if x.dim() not in (4, 5) or grid.dim() != x.dim() or grid.shape[-1] != x.dim() - 2:
        return None
    if len(x) != len(grid) or x.numel() == 0:
        return None
    if mode not in (None, "bilinear", "nearest") or padding not in (None, "zeros", "border", "reflection"):
        return None
    return torch.empty((*x.shape[:2], *grid.shape[1:-1]), dtype=x.dtype, device=x.device)


def _adaptive_pool(args: tuple[Live, ...], kwargs: dict[str, Live]) -> Tensor | None:
    x, sizes = args[0], args[1] if len(args) == 2 else None
    sizes = (sizes, sizes) if isinstance(sizes, int) else sizes
    if not isinstance(x, Tensor) or not isinstance(sizes, (tuple, list)) or kwargs or x.dim() not in (3, 4):
        return None
    if len(sizes) != 2 or not all(isinstance(size, int) and size > 0 for size in sizes):
        return None
    if not x.is_contiguous() or x.numel() == 0:
        return None
    return torch.empty((*x.shape[:-2], *sizes), dtype=x.dtype, device=x.device)


def _convolution(rank: int, args: tuple[Live, ...], kwargs: dict[str, Live]) -> Tensor | None:
    """Follow a convolution of contiguous operands; errors, and paddings by name, are left to torch."""
    given: tuple[Live, ...] = (*args, *_CONVOLUTION[len(args) :])
    x, weight, bias, stride, padding, dilation, groups = given
    if kwargs or not isinstance(x, Tensor) or not isinstance(weight, Tensor) or x.dim() != rank:
        return None
    if not _convolves(x, weight, bias, groups):
        return None
    settings = [_repeated(value, rank - 2) for value in (stride, padding, dilation)]
    if not all(settings) or min(*settings[0], *settings[2]) < 1 or min(settings[1]) < 0:
        return None
    sizes = [
        (size + 2 * pad - step * (kernel - 1) - 1) // hop + 1
        for size, kernel, hop, pad, step in zip(x.shape[2:], weight.shape[2:], *settings, strict=True)
    ]
    shape = (x.shape[0], weight.shape[0], *sizes)
    return torch.empty(shape, dtype=x.dtype, device=x.device) if min(sizes) > 0 else None


def _convolves(x: Tensor, weight: Tensor, bias: Live, groups: Live) -> bool:
    """Tell whether operands of a convolution fit together, and decide on its shape and type in the ordinary way."""
    if weight.dim() != x.dim() or x.numel() == 0 or type(groups) is not int or groups < 1:
        return False
    if x.shape[1] != weight.shape[1] * groups or weight.shape[0] % groups or x.dtype != weight.dtype:
        return False
    if isinstance(bias, Tensor) and (bias.shape != weight.shape[:1] or bias.dtype != x.dtype or not bias.is_meta):
        return False
    return weight.is_meta and x.is_contiguous() and weight.is_contiguous()


_CONVOLUTION: tuple[Live, ...] = (None, None, None, 1, 0, 1, 1)
"""Defaults of the arguments of a convolution: bias, stride, padding, dilation and groups from the third on."""


def _repeated(value: Live, count: int) -> tuple[int, ...]:
    """Return one integer for each dimension; nothing where they are given in another way."""
    given = value if isinstance(value, (tuple, list)) else (value,)
    numbers = tuple(item for item in given if isinstance(item, int) and not isinstance(item, bool))
    if len(numbers) != len(given):
        return ()
    return numbers * count if len(numbers) == 1 else numbers if len(numbers) == count else ()


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


def _recurrent_cell(gates: int, args: tuple[Live, ...], kwargs: dict[str, Live]) -> Live:
    """Follow one step of a recurrent network; torch composes the step of dozens of calls, at ten milliseconds each."""
    x, state, weight, recurrent = args[:4] if len(args) == 6 else (None, None, None, None)
    parts = state if isinstance(state, (tuple, list)) else (state,)
    if kwargs or not isinstance(x, Tensor) or not isinstance(weight, Tensor) or not isinstance(recurrent, Tensor):
        return None
    shape, rows = (x.shape[0], recurrent.shape[-1]), gates * recurrent.shape[-1]
    if x.dim() != 2 or recurrent.shape != (rows, shape[1]) or weight.shape != (rows, x.shape[1]):
        return None
    if not all(isinstance(part, Tensor) and part.shape == shape and part.dtype == x.dtype for part in parts):
        return None
    if any(isinstance(value, Tensor) and value.dtype != x.dtype for value in args[2:]):
        return None
    results = tuple(x.new_empty(shape) for _ in parts)
    return results if isinstance(state, (tuple, list)) else results[0]


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
    **dict.fromkeys(_ARITHMETIC, _elementwise), **dict.fromkeys(_ACTIVATIONS, _activation),
    **dict.fromkeys(("softmax", "log_softmax", "flip"), partial(norm_shortcuts.along, 1)),
    "roll": partial(norm_shortcuts.along, 2), "group_norm": norm_shortcuts.of_groups,
    **dict.fromkeys(("batch_norm", "instance_norm"), norm_shortcuts.of_channels),
    **dict.fromkeys(("layer_norm", "rms_norm"), norm_shortcuts.of_features),
    "linear": _linear, "mean": partial(_reduction, 1),
    **dict.fromkeys(("norm", "vector_norm"), _norm), "grid_sample": _grid_sample,
    "adaptive_avg_pool2d": _adaptive_pool,
    **dict.fromkeys(("matmul", "__matmul__", "bmm"), _product),
    "conv1d": partial(_convolution, 3), "conv2d": partial(_convolution, 4), "conv3d": partial(_convolution, 5),
    "contiguous": layout_shortcuts.contiguous, "reshape": layout_shortcuts.reshape,
    "__getitem__": layout_shortcuts.lookup, "dropout": layout_shortcuts.dropout,
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
    "scaled_dot_product_attention": _attention, "grouped_mm": _grouped_product, "_grouped_mm": _grouped_product,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    "lstm_cell": partial(_recurrent_cell, 4), "gru_cell": partial(_recurrent_cell, 3),
    **dict.fromkeys(("rnn_tanh_cell", "rnn_relu_cell"), partial(_recurrent_cell, 1)),
}  # fmt: skip
