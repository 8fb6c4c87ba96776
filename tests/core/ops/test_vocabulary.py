"""Every op of the core keeps the contract that plugins keep."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from torch_dag_core.conversion import atomic_modules, normalizers
from torch_dag_core.graph import builtin_ops
from torch_dag_core.graph.values import Size, Slot
from torch_dag_core.ops import (
    arithmetic,
    contraction,
    creation,
    layout,
    normalization,
    reduction,
    sampling,
    stochastic,
    tensors,
    torch_call,
)
from torch_dag_core.ops.attention import Attention
from torch_dag_core.ops.vocabulary import specs
from torch_dag_core.plugins.registry import Registry
from torch_dag_core.testing import CHECKS, Case

VOCABULARY = Registry()
for record in specs():
    VOCABULARY.add(record, owner="torch-dag-core")
for record in normalizers():
    VOCABULARY.add_normalizer(record, owner="torch-dag-core")
for record in atomic_modules():
    VOCABULARY.add_atomic(record, owner="torch-dag-core")

FLAT, SEQUENCE, IMAGE, VOLUME = (3, 8), (2, 4, 8), (2, 4, 6, 6), (2, 4, 4, 6, 6)


def _x(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(len(shape))) + 0.25


def _b(*shape):
    return _x(*shape) > 0.6


def _i(*values):
    return torch.tensor(values)


def _example(module, *shapes):
    return module, tuple(_x(*shape) if isinstance(shape, tuple) else shape for shape in shapes)


_BATCH = Size(((0, 0),))
_TWO = {
    name: (getattr(arithmetic, cls)(), _x(*FLAT), _x(*FLAT))
    for name, cls in {
        "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "floor_div": "FloorDiv", "remainder": "Remainder",
        "pow": "Pow", "maximum": "Maximum", "minimum": "Minimum", "eq": "Eq", "ne": "Ne", "lt": "Lt", "le": "Le",
        "gt": "Gt", "ge": "Ge", "atan2": "Atan2",
    }.items()
}  # fmt: skip
_LOGIC = {name: (getattr(arithmetic, name.capitalize())(), _b(*FLAT), _b(*FLAT)) for name in ("and", "or", "xor")}
_ONE = {
    name: (getattr(arithmetic, cls)(), _x(*FLAT))
    for name, cls in {
        "neg": "Neg", "abs": "Abs", "exp": "Exp", "expm1": "Expm1", "log": "Log", "log1p": "Log1p", "sqrt": "Sqrt",
        "rsqrt": "Rsqrt", "reciprocal": "Reciprocal", "square": "Square", "sin": "Sin", "cos": "Cos", "erf": "Erf",
        "floor": "Floor", "ceil": "Ceil", "round": "Round", "sign": "Sign", "isnan": "IsNan",
    }.items()
}  # fmt: skip
_REDUCED = {
    name: _example(getattr(reduction, cls)(*constants), SEQUENCE)
    for name, cls, constants in (
        ("sum", "Sum", (-1, True)), ("mean", "Mean", ((1, 2),)), ("amax", "Amax", ((2,),)), ("amin", "Amin", ((1, 2),)),
        ("max_along", "MaxAlong", (1,)), ("min_along", "MinAlong", (2, True)), ("var", "Var", (-1,)),
        ("std", "Std", (1, 0, True)), ("var_mean", "VarMean", ((1, 2),)), ("norm", "Norm", (2.0, 1)),
        ("std_mean", "StdMean", ((1, 2),)),
        ("logsumexp", "LogSumExp", (1,)), ("argmax", "Argmax", (2,)), ("argmin", "Argmin", (1, True)),
        ("cumsum", "CumSum", (1,)), ("topk", "TopK", (2,)), ("sort", "Sort", (1, True)),
    )
}  # fmt: skip
_LAYOUT = {
    "get_item": (builtin_ops.GetItem(1), (_x(2, 3), _x(2, 4))),
    "pack": _example(layout.Pack(), FLAT, FLAT),
    "reshape": _example(layout.Reshape((-1, 4, 4, 2)), SEQUENCE),
    "permute": _example(layout.Permute((0, 2, 1)), SEQUENCE),
    "expand": _example(layout.Expand((-1, 5, 8)), (2, 1, 8)),
    "repeat": _example(layout.Repeat((1, 2, 1)), SEQUENCE),
    "repeat_interleave": _example(layout.RepeatInterleave(2, 1), SEQUENCE),
    "cat": _example(layout.Cat(1), (2, 3), (2, 4)),
    "stack": _example(layout.Stack(1), FLAT, FLAT),
    "split": _example(layout.Split((3, 5), -1), SEQUENCE),
    "unbind": _example(layout.Unbind(1), SEQUENCE),
    "index": _example(layout.Index((slice(None), 1, Slot(1))), SEQUENCE, _i(0, 2, 2)),
    "set_index": _example(layout.SetIndex((slice(None), 1), 0.5), SEQUENCE),
    "pad": _example(layout.Pad((1, 2)), SEQUENCE),
    "roll": _example(layout.Roll((1,), (2,)), SEQUENCE),
    "flip": _example(layout.Flip((1,)), SEQUENCE),
    "unfold_dim": _example(layout.UnfoldDim(2, 4, 2), SEQUENCE),
    "gather": _example(layout.Gather(1), FLAT, _i([0, 1], [1, 2], [3, 3])),
    "index_select": _example(layout.IndexSelect(1), FLAT, _i(0, 2)),
    "triangle": _example(layout.Triangle(1, True), SEQUENCE),
}
_FUNCTIONS = {
    "where": (arithmetic.Where(), _b(*FLAT), _x(*FLAT), _x(*FLAT)),
    "masked_fill": (arithmetic.MaskedFill(0.5), _x(*FLAT), _b(*FLAT)),
    "clamp": _example(arithmetic.Clamp(0.5, 1.0), FLAT),
    "invert": (arithmetic.Invert(), _b(*FLAT)),
    "cast": _example(arithmetic.Cast(torch.float64), FLAT),
    "cast_like": (arithmetic.CastLike(), _x(*FLAT), _i(1)),
    "detach": _example(arithmetic.Detach(), FLAT),
    "full": _example(creation.Full((_BATCH, 2), 0.5), FLAT),
    "arange": _example(creation.Arange(0, 5), FLAT),
    "linspace": _example(creation.Linspace(0.0, 1.0, 5), FLAT),
    "random": _example(stochastic.Random((_BATCH, 2), "normal"), FLAT),
    "training_switch": _example(builtin_ops.TrainingSwitch(), FLAT, FLAT),
    "drop_path": _example(stochastic.DropPath(0.5), FLAT),
    "stochastic_depth": _example(stochastic.StochasticDepth(0.5, "batch"), FLAT),
    "functional_dropout": _example(stochastic.FunctionalDropout(0.5), FLAT),
    "free_parameter": (builtin_ops.FreeParameter((2, 3), torch.float32, value=_x(2, 3)),),
    "constant": (builtin_ops.Constant((2, 3), torch.float32, value=_x(2, 3)),),
    "state": (builtin_ops.State((2, 3), torch.float32, value=_x(2, 3)),),
    "keep": _example(tensors.Keep(), FLAT),
    "torch_call": _example(torch_call.TorchCall("torch.cumprod", (Slot(0),), (("dim", 1),)), FLAT),
    "embedding_function": (contraction.EmbeddingFunction(), _i([0, 1], [2, 2]), _x(4, 3)),
    "matmul": _example(contraction.Matmul(), SEQUENCE, (8, 5)),
    "einsum": _example(contraction.Einsum("bij,jk->bik"), SEQUENCE, (8, 5)),
    "linear_function": _example(contraction.LinearFunction(), SEQUENCE, (5, 8), (5,)),
    "convolution": _example(contraction.Convolution((1, 1), (1, 1), (1, 1), 2), IMAGE, (6, 2, 3, 3), (6,)),
    "transposed_convolution": _example(
        contraction.TransposedConvolution((2, 2), (0, 0), (0, 0), 1, (1, 1)), IMAGE, (4, 3, 2, 2)
    ),
    "scaled_dot_product_attention": _example(
        contraction.ScaledDotProductAttention(), (2, 2, 5, 4), (2, 2, 6, 4), (2, 2, 6, 3)
    ),
    "layer_norm_function": _example(normalization.LayerNormFunction((8,)), SEQUENCE, (8,), (8,)),
    "rms_norm_function": _example(normalization.RMSNormFunction((8,)), SEQUENCE, (8,)),
    "group_norm_function": _example(normalization.GroupNormFunction(2), IMAGE, (4,), (4,)),
    "batch_norm_function": _example(normalization.BatchNormFunction(), IMAGE),
    "frozen_batch_norm": _example(normalization.FrozenBatchNorm(), IMAGE, (4,), (4,), (4,), (4,)),
    "normalize": _example(normalization.Normalize(), SEQUENCE),
    "interpolate": _example(sampling.Interpolate(scale_factor=2.0), IMAGE),
    "grid_sample": _example(sampling.GridSample(align_corners=False), IMAGE, (2, 3, 3, 2)),
    "same_pad": _example(sampling.SamePad((3, 3), (2, 2)), IMAGE),
    "attention": _example(Attention(8, 2, 4, 8, scale=0.5), SEQUENCE),
}
_MODULES = {
    "linear": _example(nn.Linear(8, 5), SEQUENCE),
    "bilinear": _example(nn.Bilinear(8, 8, 5), FLAT, FLAT),
    "conv1d": _example(nn.Conv1d(4, 6, 3), SEQUENCE),
    "conv2d": _example(nn.Conv2d(4, 6, 3, padding=1, groups=2), IMAGE),
    "conv3d": _example(nn.Conv3d(4, 6, 3, bias=False), VOLUME),
    "conv_transpose1d": _example(nn.ConvTranspose1d(4, 6, 3), SEQUENCE),
    "conv_transpose2d": _example(nn.ConvTranspose2d(4, 6, 3, stride=2), IMAGE),
    "conv_transpose3d": _example(nn.ConvTranspose3d(4, 6, 3), VOLUME),
    "embedding": (nn.Embedding(5, 3), _i([0, 1], [4, 2])),
    "batch_norm1d": _example(nn.BatchNorm1d(8), FLAT),
    "batch_norm2d": _example(nn.BatchNorm2d(4), IMAGE),
    "batch_norm3d": _example(nn.BatchNorm3d(4), VOLUME),
    "instance_norm1d": _example(nn.InstanceNorm1d(4), SEQUENCE),
    "instance_norm2d": _example(nn.InstanceNorm2d(4), IMAGE),
    "instance_norm3d": _example(nn.InstanceNorm3d(4), VOLUME),
    "layer_norm": _example(nn.LayerNorm(8), SEQUENCE),
    "group_norm": _example(nn.GroupNorm(2, 4), IMAGE),
    "rms_norm": _example(nn.RMSNorm(8), SEQUENCE),
    "local_response_norm": _example(nn.LocalResponseNorm(2), IMAGE),
    "prelu": _example(nn.PReLU(4), IMAGE),
    "threshold": _example(nn.Threshold(0.5, 0.0), FLAT),
    "glu": _example(nn.GLU(), FLAT),
    "softmax": _example(nn.Softmax(-1), FLAT),
    "log_softmax": _example(nn.LogSoftmax(-1), FLAT),
    "softmin": _example(nn.Softmin(-1), FLAT),
    "softmax2d": _example(nn.Softmax2d(), IMAGE),
    "upsample": _example(nn.Upsample(scale_factor=2.0), IMAGE),
    "upsampling_nearest2d": _example(nn.UpsamplingNearest2d(scale_factor=2.0), IMAGE),
    "upsampling_bilinear2d": _example(nn.UpsamplingBilinear2d(scale_factor=2.0), IMAGE),
    "pixel_shuffle": _example(nn.PixelShuffle(2), IMAGE),
    "pixel_unshuffle": _example(nn.PixelUnshuffle(2), IMAGE),
    "channel_shuffle": _example(nn.ChannelShuffle(2), IMAGE),
    "fold": _example(nn.Fold((4, 4), 2, stride=2), (2, 8, 4)),
    "unfold": _example(nn.Unfold(2), IMAGE),
    "lstm": _example(nn.LSTM(8, 3, batch_first=True), SEQUENCE),
    "gru": _example(nn.GRU(8, 3, batch_first=True), SEQUENCE),
    "lstm_cell": _example(nn.LSTMCell(8, 3), FLAT),
    "gru_cell": _example(nn.GRUCell(8, 3), FLAT),
    "rnn_cell": _example(nn.RNNCell(8, 3), FLAT),
    "rnn": _example(nn.RNN(8, 3, batch_first=True), SEQUENCE),
    "flatten": _example(nn.Flatten(), SEQUENCE),
    "unflatten": _example(nn.Unflatten(1, (2, 4)), FLAT),
    "cosine_similarity": _example(nn.CosineSimilarity(), FLAT, FLAT),
    "pairwise_distance": _example(nn.PairwiseDistance(), FLAT, FLAT),
    "rrelu": _example(nn.RReLU(), FLAT),
    "alpha_dropout": _example(nn.AlphaDropout(0.5), FLAT),
    "feature_alpha_dropout": _example(nn.FeatureAlphaDropout(0.5), IMAGE),
    "dropout": _example(nn.Dropout(0.5), FLAT),
    "dropout1d": _example(nn.Dropout1d(0.5), SEQUENCE),
    "dropout2d": _example(nn.Dropout2d(0.5), IMAGE),
    "dropout3d": _example(nn.Dropout3d(0.5), VOLUME),
    "lp_pool1d": _example(nn.LPPool1d(2, 2), SEQUENCE),
    "lp_pool2d": _example(nn.LPPool2d(2, 2), IMAGE),
    **{
        f"{key}_pool{n}d": _example(getattr(nn, f"{cls}Pool{n}d")(2), shape)
        for key, cls in (
            ("max", "Max"), ("avg", "Avg"), ("adaptive_avg", "AdaptiveAvg"), ("adaptive_max", "AdaptiveMax"),
        )
        for n, shape in ((1, SEQUENCE), (2, IMAGE), (3, VOLUME))
    },
    **{
        f"{key}_pad{n}d": _example(getattr(nn, f"{cls}Pad{n}d")(1, *constant), shape)
        for key, cls, constant in (
            ("zero", "Zero", ()), ("constant", "Constant", (0.5,)), ("reflection", "Reflection", ()),
            ("replication", "Replication", ()), ("circular", "Circular", ()),
        )
        for n, shape in ((1, SEQUENCE), (2, IMAGE), (3, VOLUME))
    },
    **{
        key: _example(getattr(nn, cls)(), FLAT)
        for key, cls in {
            "relu": "ReLU", "relu6": "ReLU6", "leaky_relu": "LeakyReLU", "elu": "ELU", "selu": "SELU",
            "celu": "CELU", "gelu": "GELU", "silu": "SiLU", "mish": "Mish", "sigmoid": "Sigmoid", "tanh": "Tanh",
            "hardswish": "Hardswish", "hardsigmoid": "Hardsigmoid", "hardtanh": "Hardtanh", "softplus": "Softplus",
            "softsign": "Softsign", "logsigmoid": "LogSigmoid", "tanhshrink": "Tanhshrink",
            "hardshrink": "Hardshrink", "softshrink": "Softshrink", "identity": "Identity",
        }.items()
    },
}  # fmt: skip
EXAMPLES = {
    f"core.{key}": (example[0], example[1] if len(example) == 2 and isinstance(example[1], tuple) else example[1:])
    for key, example in {**_TWO, **_LOGIC, **_ONE, **_REDUCED, **_LAYOUT, **_FUNCTIONS, **_MODULES}.items()
}
EXAMPLES["core.get_item"] = (builtin_ops.GetItem(1), ((_x(2, 3), _x(2, 4)),))


# What a check cannot see by its nature: values of a tuple are picked while a model is traced, not by a module of it.
NOT_FOR = {("core.get_item", "traces")}


def cases():
    for key, (module, inputs) in EXAMPLES.items():
        spec = VOCABULARY.find(key)
        if spec is not None:
            yield Case(spec, 0, module, inputs, VOCABULARY)


def parameters():
    for case in cases():
        for check in CHECKS:
            if check.applies(case) and (case.record.key, check.name) not in NOT_FOR:
                yield pytest.param(case, check, id=f"{case.record.key}-{check.name}")


def test_every_op_has_an_example():
    assert {spec.key for spec in VOCABULARY.ops()} - EXAMPLES.keys() == set()


@pytest.mark.parametrize(("case", "check"), list(parameters()))
def test_contract(case, check):
    assert check.run(case) is None
