"""What autocast does to functions and modules, where that is the same on every device."""

from __future__ import annotations

import torch
from torch import nn

NEVER_CAST = frozenset({
    "add", "sub", "mul", "div", "true_divide", "neg", "abs", "sign", "maximum", "minimum", "clamp", "relu", "sigmoid",
    "tanh", "silu", "sin", "cos", "sqrt", "floor", "ceil", "round", "mean", "where", "eq", "ne", "lt", "le", "gt", "ge",
    "to", "float", "double", "half", "bfloat16", "int", "long", "bool", "type", "type_as", "clone", "detach",
    "contiguous", "alias", "copy", "fill", "zero", "masked_fill", "view", "reshape", "permute", "transpose", "expand",
    "expand_as", "view_as", "reshape_as", "unsqueeze", "squeeze", "flatten", "unflatten", "repeat", "roll", "flip",
    "narrow", "select", "chunk", "split", "unbind", "t", "T", "mT", "arange", "zeros", "ones", "full", "empty",
    "zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty", "tensor",
    "rand", "randn", "rand_like", "randn_like", "bernoulli", "bernoulli_", "normal_", "uniform", "exponential",
    "linspace", "dropout", "argmax", "argmin", "max", "min", "amax", "amin", "sort", "topk", "gather", "index_select",
    "embedding", "isnan", "isinf", "isfinite", "leaky_relu", "hardtanh", "relu6", "elu", "__add__", "__radd__",
    "__sub__", "__rsub__", "__mul__", "__rmul__", "__truediv__", "__neg__", "__getitem__", "__eq__", "__ne__", "__lt__",
    "__le__", "__gt__", "__ge__",
})  # fmt: skip
"""Functions that autocast leaves alone on every device."""
CAST_TO_SINGLE = frozenset({
    "acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log1p", "log2", "reciprocal", "rsqrt", "sinh",
    "square", "tan", "pow", "__pow__", "__rpow__", "__rtruediv__", "softplus", "softmax", "log_softmax", "softmin",
    "logsumexp", "layer_norm", "group_norm", "norm", "vector_norm", "sum", "prod", "cumsum", "cumprod", "cat", "concat",
    "stack", "var", "std", "mse_loss", "l1_loss", "smooth_l1_loss", "nll_loss", "cross_entropy", "cosine_similarity",
    "interpolate",
})  # fmt: skip
"""Functions that autocast computes in single precision, or in the widest type of their operands."""
_NAMES = """
    Identity Flatten Unflatten Embedding PixelShuffle PixelUnshuffle ChannelShuffle
    ReLU ReLU6 LeakyReLU ELU CELU SELU SiLU Mish GELU Sigmoid Tanh Hardtanh Hardswish Hardsigmoid
    Dropout Dropout1d Dropout2d Dropout3d AlphaDropout FeatureAlphaDropout BatchNorm1d BatchNorm2d BatchNorm3d
    MaxPool1d MaxPool2d AvgPool1d AvgPool2d AdaptiveAvgPool1d AdaptiveAvgPool2d
"""
LEFT_ALONE = frozenset({getattr(nn, name) for name in _NAMES.split()})
"""Modules that autocast leaves alone on every device."""


def has_shortcut(module: nn.Module, device: torch.device) -> bool:
    """Tell whether torch computes a module in one step without gradients, and in other types where autocast is on.

    Its own check for autocast asks for that of CUDA.
    """
    if type(module) is not nn.TransformerEncoderLayer or device.type == "cuda":
        return False
    return not module.training and module.self_attn.batch_first
