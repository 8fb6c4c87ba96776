"""The core vocabulary as data: every op with its key, its functions and its cost."""

from __future__ import annotations

from typing import Any

from torch import nn

from torch_dag_core.graph import builtin_ops
from torch_dag_core.graph.op import Op
from torch_dag_core.ops import (
    arithmetic,
    contraction,
    creation,
    flops,
    layout,
    normalization,
    reduction,
    sampling,
    stochastic,
    tensors,
    torch_call,
)
from torch_dag_core.ops.attention import Attention
from torch_dag_core.plugins.codecs import ClassCodec, ModuleCodec, OpCodec
from torch_dag_core.plugins.registry import OpSpec

_MOVES: tuple[type[Op], ...] = (
    builtin_ops.GetItem, layout.Pack, layout.Reshape, layout.Permute, layout.Expand, layout.Repeat,
    layout.RepeatInterleave, layout.Cat, layout.Stack,
    layout.Split, layout.Unbind, layout.Index, layout.SetIndex, layout.Pad, layout.Roll, layout.Flip,
    layout.UnfoldDim, layout.Gather, layout.IndexSelect, layout.Triangle, creation.Full, creation.Arange,
    creation.Linspace, stochastic.Random, builtin_ops.TrainingSwitch, arithmetic.Cast, arithmetic.CastLike,
    arithmetic.Detach, contraction.EmbeddingFunction,
    sampling.SamePad, tensors.Keep,
)  # fmt: skip

_HOLDERS = (builtin_ops.FreeParameter, builtin_ops.Constant, builtin_ops.State)

_COSTS: dict[type[nn.Module], Any] = {
    **dict.fromkeys((*_MOVES, *_HOLDERS), flops.free),
    reduction.Sum: flops.per_input,
    reduction.Mean: flops.per_input,
    reduction.Amax: flops.per_input,
    reduction.Amin: flops.per_input,
    reduction.MaxAlong: flops.per_input,
    reduction.MinAlong: flops.per_input,
    reduction.Var: flops.per_input,
    reduction.Std: flops.per_input,
    reduction.VarMean: flops.per_input,
    reduction.Norm: flops.per_input,
    reduction.LogSumExp: flops.per_input,
    contraction.Matmul: flops.matmul,
    contraction.Einsum: flops.einsum,
    contraction.LinearFunction: flops.linear_function,
    contraction.Convolution: flops.convolution_function,
    contraction.TransposedConvolution: flops.transposed_convolution_function,
    contraction.ScaledDotProductAttention: flops.attention,
    normalization.LayerNormFunction: flops.times_output(5),
    normalization.RMSNormFunction: flops.times_output(4),
    normalization.GroupNormFunction: flops.times_output(5),
    normalization.BatchNormFunction: flops.times_output(5),
    normalization.FrozenBatchNorm: flops.times_output(2),
    normalization.Normalize: flops.times_output(3),
    nn.Linear: flops.linear,
    nn.Conv1d: flops.convolution,
    nn.Conv2d: flops.convolution,
    nn.Conv3d: flops.convolution,
    nn.ConvTranspose1d: flops.transposed_convolution,
    nn.ConvTranspose2d: flops.transposed_convolution,
    nn.ConvTranspose3d: flops.transposed_convolution,
    nn.BatchNorm1d: flops.times_output(2),
    nn.BatchNorm2d: flops.times_output(2),
    nn.BatchNorm3d: flops.times_output(2),
    nn.LayerNorm: flops.times_output(5),
    nn.RMSNorm: flops.times_output(4),
    nn.GroupNorm: flops.times_output(5),
    nn.Softmax: flops.times_output(5),
    nn.LogSoftmax: flops.times_output(5),
    nn.AvgPool1d: flops.window,
    nn.AvgPool2d: flops.window,
    nn.AvgPool3d: flops.window,
    nn.MaxPool1d: flops.window,
    nn.MaxPool2d: flops.window,
    nn.MaxPool3d: flops.window,
    nn.AdaptiveAvgPool1d: flops.per_input,
    nn.AdaptiveAvgPool2d: flops.per_input,
    nn.AdaptiveAvgPool3d: flops.per_input,
    nn.AdaptiveMaxPool2d: flops.per_input,
    **dict.fromkeys(
        (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.Identity,
         nn.Embedding, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle, nn.Unfold, nn.ZeroPad2d,
         nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d),
        flops.free,
    ),
}  # fmt: skip

_SIGNATURES: dict[type[Any], tuple[str, ...]] = {
    layout.Cat: ("cat", "concat", "concatenate"),
    layout.Stack: ("stack",),
    reduction.LogSumExp: ("logsumexp",),
    reduction.Argmax: ("argmax",),
    reduction.Argmin: ("argmin",),
    reduction.CumSum: ("cumsum",),
    reduction.TopK: ("topk",),
    reduction.Sort: ("sort",),
    **arithmetic.UNARY,
}
"""Functions bound to an op by its signature alone; all others have a normalizer."""

_OPS: tuple[type[Op], ...] = (
    *arithmetic.BINARY, *arithmetic.UNARY, arithmetic.Where, arithmetic.MaskedFill, arithmetic.Clamp, *_MOVES,
    reduction.Sum, reduction.Mean, reduction.Amax, reduction.Amin, reduction.MaxAlong, reduction.MinAlong,
    reduction.Var, reduction.Std, reduction.VarMean, reduction.Norm, reduction.LogSumExp, reduction.Argmax,
    reduction.Argmin, reduction.CumSum, reduction.TopK, reduction.Sort, contraction.Matmul, contraction.Einsum,
    contraction.LinearFunction, contraction.Convolution, contraction.TransposedConvolution,
    contraction.ScaledDotProductAttention, normalization.LayerNormFunction, normalization.RMSNormFunction,
    normalization.GroupNormFunction, normalization.BatchNormFunction, normalization.FrozenBatchNorm,
    normalization.Normalize, sampling.Interpolate, sampling.GridSample, stochastic.DropPath,
    stochastic.StochasticDepth, stochastic.FunctionalDropout, torch_call.TorchCall,
)  # fmt: skip

_MODULES = (
    "Linear", "Bilinear", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d",
    "Embedding", "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d",
    "LayerNorm", "GroupNorm", "RMSNorm", "LocalResponseNorm", "MaxPool1d", "MaxPool2d", "MaxPool3d", "AvgPool1d",
    "AvgPool2d", "AvgPool3d", "LPPool1d", "LPPool2d", "AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d",
    "AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "AdaptiveMaxPool3d", "ReLU", "ReLU6", "LeakyReLU", "PReLU", "ELU", "SELU",
    "CELU", "GELU", "SiLU", "Mish", "Sigmoid", "Tanh", "Hardswish", "Hardsigmoid", "Hardtanh", "Softplus", "Softsign",
    "LogSigmoid", "Tanhshrink", "Hardshrink", "Softshrink", "Threshold", "GLU", "Softmax", "LogSoftmax", "Softmin",
    "Softmax2d", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout", "ZeroPad1d",
    "ZeroPad2d", "ZeroPad3d", "ConstantPad1d", "ConstantPad2d", "ConstantPad3d", "ReflectionPad1d",
    "ReflectionPad2d", "ReflectionPad3d", "ReplicationPad1d", "ReplicationPad2d", "ReplicationPad3d", "CircularPad1d",
    "CircularPad2d", "CircularPad3d", "Upsample", "UpsamplingNearest2d", "UpsamplingBilinear2d", "PixelShuffle",
    "PixelUnshuffle", "ChannelShuffle", "Fold", "Unfold", "LSTM", "GRU", "RNN", "LSTMCell", "GRUCell",
    "RNNCell", "Flatten", "Unflatten", "Identity",
    "CosineSimilarity", "PairwiseDistance",
)  # fmt: skip


def _key(cls: type[nn.Module]) -> str:
    """Return ``core.conv2d`` for Conv2d, ``core.scaled_dot_product_attention`` for its class."""
    name = cls.__name__
    words = [
        f"_{c.lower()}" if i and c.isupper() and (name[i - 1].islower() or name[i + 1 : i + 2].islower()) else c.lower()
        for i, c in enumerate(name)
    ]
    return "core." + "".join(words)


def specs() -> list[OpSpec]:
    """Return the records of the whole core vocabulary."""
    records = [
        OpSpec(key=_key(op), target=op, codec=OpCodec(op), functions=_SIGNATURES.get(op, ()), flops=_COSTS.get(op))
        for op in _OPS
    ]
    records += [OpSpec(key=_key(cls), target=cls, codec=ClassCodec(cls), flops=flops.free) for cls in _HOLDERS]
    for name in _MODULES:
        module = getattr(nn, name)
        records.append(OpSpec(key=_key(module), target=module, codec=ModuleCodec(module), flops=_COSTS.get(module)))
    records.append(
        OpSpec(
            key="core.attention",
            target=Attention,
            codec=ClassCodec(Attention),
            flops=flops.self_attention,
            expand=lambda module: module,
        )
    )
    return records
