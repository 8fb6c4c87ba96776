"""How the core's own ops read as Python; modules of `torch.nn` need no record."""

from __future__ import annotations

import operator
from typing import Any

from torch_dag_core.graph import builtin_ops
from torch_dag_core.ops import (
    arithmetic,
    attention,
    contraction,
    creation,
    layout,
    normalization,
    reduction,
    sampling,
    stochastic,
    tensors,
    torch_call,
    vocabulary,
)
from torch_dag_export.python.form import Call, PythonForm, arguments, written_as
from torch_dag_export.python.literals import subscript
from torch_dag_export.python.support import overwritten

# Arithmetic ------------------------------------------------------------------------------------------------------

_SIGNS = {
    operator.add: "+", operator.sub: "-", operator.mul: "*", operator.truediv: "/", operator.pow: "**",
    operator.eq: "==", operator.ne: "!=", operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">=",
    operator.and_: "&", operator.or_: "|", operator.xor: "^", operator.neg: "-", operator.invert: "~",
}  # fmt: skip


def _binary(call: Call) -> str:
    """Return ``x + y``, ``x + 0.5`` or ``torch.maximum(x, y)``."""
    module = call.module
    first, *rest = call.operands
    second = rest[0] if rest else call.literal(module.scalar)
    if not rest and module.scalar_first:
        first, second = f"({second})" if second.startswith("-") else second, first
    sign = _SIGNS.get(type(module).function)
    return f"{first} {sign} {second}" if sign else f"{_torch_name(type(module).function)}({first}, {second})"


def _floor_divide(call: Call) -> str:
    if len(call.operands) == 1 and call.module.scalar_first:
        return f"{call.literal(call.module.scalar)} // {call.operands[0]}"
    divisor = call.operands[1] if len(call.operands) > 1 else call.literal(call.module.scalar)
    return f'torch.div({call.operands[0]}, {divisor}, rounding_mode="floor")'


def _unary(call: Call) -> str:
    function = type(call.module).function
    return f"{_SIGNS[function]}{call.operands[0]}" if function in _SIGNS else f"{_torch_name(function)}({call.all})"


def _torch_name(function: Any) -> str:
    return f"torch.{function.__name__}"


def _where(call: Call) -> str:
    condition, *rest = call.operands
    x = rest.pop(0) if call.module.x is None else call.literal(call.module.x)
    y = rest.pop(0) if call.module.y is None else call.literal(call.module.y)
    return f"torch.where({condition}, {x}, {y})"


_CLASSES = [spec.target for spec in vocabulary.specs()]
_BINARY = [each for each in _CLASSES if issubclass(each, arithmetic.Binary) and each is not arithmetic.FloorDiv]
ARITHMETIC = (
    *(PythonForm(target=each, expression=_binary) for each in _BINARY),
    *(PythonForm(target=each, expression=_unary) for each in _CLASSES if issubclass(each, arithmetic.Unary)),
    PythonForm(target=arithmetic.FloorDiv, expression=_floor_divide),
    PythonForm(target=arithmetic.Where, expression=_where),
    written_as(arithmetic.MaskedFill, "{0}.masked_fill({1}, {value})"),
    written_as(arithmetic.Clamp, "torch.clamp({0}, {min}, {max})"),
    written_as(arithmetic.Cast, "{0}.to({dtype})"),
    written_as(arithmetic.CastLike, "{0}.to({1}.dtype)"),
    written_as(arithmetic.Detach, "{0}.detach()"),
)

# Products, convolutions and attention ----------------------------------------------------------------------------


def _convolution(call: Call) -> str:
    module, text = call.module, call.literal
    x, weight, bias = (*call.operands, "None")[:3]
    rest = [text(value) for value in (module.stride, module.padding, module.dilation, module.groups)]
    return f"functional.conv{len(module.stride)}d({arguments(x, weight, bias, *rest)})"


def _transposed_convolution(call: Call) -> str:
    module, text = call.module, call.literal
    x, weight, bias = (*call.operands, "None")[:3]
    values = (module.stride, module.padding, module.output_padding, module.groups, module.dilation)
    rest = [text(value) for value in values]
    return f"functional.conv_transpose{len(module.stride)}d({arguments(x, weight, bias, *rest)})"


def _attention(call: Call) -> str:
    module = call.module
    return "functional.scaled_dot_product_attention({})".format(
        arguments(
            *call.operands,
            dropout_p=f"{module.dropout_p} if self.training else 0.0" if module.dropout_p else None,
            is_causal="True" if module.is_causal else None,
            scale=None if module.scale is None else call.literal(module.scale),
            enable_gqa="True" if module.enable_gqa else None,
        )
    )


CONTRACTIONS = (
    written_as(contraction.Matmul, "torch.matmul({0}, {1})"),
    written_as(contraction.Einsum, "torch.einsum({equation}, {all})"),
    written_as(contraction.LinearFunction, "functional.linear({all})"),
    PythonForm(target=contraction.Convolution, expression=_convolution),
    PythonForm(target=contraction.TransposedConvolution, expression=_transposed_convolution),
    written_as(contraction.EmbeddingFunction, "functional.embedding({0}, {1}, {padding_idx})"),
    PythonForm(target=contraction.ScaledDotProductAttention, expression=_attention),
    PythonForm(target=attention.Attention, sources=(attention.head_norm, attention.Attention)),
)

# Layout ----------------------------------------------------------------------------------------------------------


def _pack(call: Call) -> str:
    return f"({call.all}{',' if len(call.operands) == 1 else ''})"


def _index(call: Call) -> str:
    return f"{call.operands[0]}[{subscript(call.module.items, call.operands)}]"


def _set_index(call: Call) -> str:
    module = call.module
    value = call.operands[1] if module.value is None else call.literal(module.value)
    return f"set_index({call.operands[0]}, {call.literal(module.items)}, {value})"


def _triangle(call: Call) -> str:
    return f"torch.{'triu' if call.module.upper else 'tril'}({call.operands[0]}, {call.module.diagonal})"


LAYOUT = (
    PythonForm(target=layout.Pack, expression=_pack),
    written_as(layout.Reshape, "{0}.reshape({shape})"),
    written_as(layout.Permute, "{0}.permute({dims})"),
    written_as(layout.Expand, "{0}.expand({sizes})"),
    written_as(layout.Repeat, "{0}.repeat({repeats})"),
    written_as(layout.RepeatInterleave, "{0}.repeat_interleave({repeats}, {dim})"),
    written_as(layout.Cat, "torch.cat([{all}], {dim})"),
    written_as(layout.Stack, "torch.stack([{all}], {dim})"),
    written_as(layout.Split, "torch.split({0}, list({sizes}), {dim})"),
    written_as(layout.Unbind, "{0}.unbind({dim})"),
    PythonForm(target=layout.Index, expression=_index),
    PythonForm(target=layout.SetIndex, expression=_set_index, sources=(layout.set_index,)),
    written_as(layout.Pad, "functional.pad({0}, {pad}, {mode}, {value})"),
    written_as(layout.Roll, "torch.roll({0}, {shifts}, {dims})"),
    written_as(layout.Flip, "torch.flip({0}, {dims})"),
    written_as(layout.UnfoldDim, "{0}.unfold({dimension}, {size}, {step})"),
    written_as(layout.Gather, "torch.gather({0}, {dim}, {1})"),
    written_as(layout.IndexSelect, "torch.index_select({0}, {dim}, {1})"),
    PythonForm(target=layout.Triangle, expression=_triangle),
)

# Normalisations and reductions -----------------------------------------------------------------------------------

NORMALIZATIONS = (
    written_as(normalization.LayerNormFunction, "functional.layer_norm({0}, {normalized_shape}, {1}, {2}, {eps})"),
    written_as(normalization.RMSNormFunction, "functional.rms_norm({0}, {normalized_shape}, {1}, {eps})"),
    written_as(normalization.GroupNormFunction, "functional.group_norm({0}, {num_groups}, {1}, {2}, {eps})"),
    written_as(
        normalization.BatchNormFunction,
        "functional.batch_norm({0}, None, None, {1}, {2}, training=True, momentum=0.0, eps={eps})",
    ),
    written_as(
        normalization.FrozenBatchNorm,
        "functional.batch_norm({0}, {1}, {2}, {3}, {4}, training=False, momentum=0.0, eps={eps})",
    ),
    written_as(normalization.Normalize, "functional.normalize({0}, {p}, {dim}, {eps})"),
)
REDUCTIONS = (
    written_as(reduction.Sum, "torch.sum({0}, {dim}, {keepdim}, dtype={dtype})"),
    written_as(reduction.Mean, "torch.mean({0}, {dim}, {keepdim}, dtype={dtype})"),
    written_as(reduction.Amax, "torch.amax({0}, {dim}, {keepdim})"),
    written_as(reduction.Amin, "torch.amin({0}, {dim}, {keepdim})"),
    written_as(reduction.MaxAlong, "torch.max({0}, {dim}, {keepdim})"),
    written_as(reduction.MinAlong, "torch.min({0}, {dim}, {keepdim})"),
    written_as(reduction.Var, "torch.var({0}, {dim}, correction={correction}, keepdim={keepdim})"),
    written_as(reduction.Std, "torch.std({0}, {dim}, correction={correction}, keepdim={keepdim})"),
    written_as(reduction.VarMean, "torch.var_mean({0}, {dim}, correction={correction}, keepdim={keepdim})"),
    written_as(reduction.StdMean, "torch.std_mean({0}, {dim}, correction={correction}, keepdim={keepdim})"),
    written_as(reduction.Norm, "torch.norm({0}, {p}, {dim}, {keepdim})"),
    written_as(reduction.LogSumExp, "torch.logsumexp({0}, {dim}, {keepdim})"),
    written_as(reduction.Argmax, "torch.argmax({0}, {dim}, {keepdim})"),
    written_as(reduction.Argmin, "torch.argmin({0}, {dim}, {keepdim})"),
    written_as(reduction.CumSum, "torch.cumsum({0}, {dim}, dtype={dtype})"),
    written_as(reduction.TopK, "torch.topk({0}, {k}, {dim}, {largest}, {sorted})"),
    written_as(reduction.Sort, "torch.sort({0}, dim={dim}, descending={descending}, stable={stable})"),
)

# Sampling, creation and random numbers ---------------------------------------------------------------------------


def _dtype(call: Call) -> str:
    return f"{call.operands[0]}.dtype" if call.module.dtype is None else call.literal(call.module.dtype)


def _made(call: Call, shape: Any) -> str:
    """Return the arguments of a function that makes a tensor of this shape beside the first operand."""
    return arguments(call.literal(shape), dtype=_dtype(call), device=f"{call.operands[0]}.device")


def _full(call: Call) -> str:
    value = call.literal(call.module.value)
    where = arguments(dtype=_dtype(call), device=f"{call.operands[0]}.device")
    return f"torch.full({call.literal(call.module.shape)}, {value}, {where})"


def _random(call: Call) -> str:
    made = _made(call, call.module.shape)
    if call.module.distribution == "bernoulli":
        return f"torch.empty({made}).bernoulli_({call.literal(call.module.parameter)})"
    return f"{_torch_name(stochastic._DISTRIBUTIONS[call.module.distribution])}({made})"


_ACTIVE = {
    (True, True): "True", (False, False): "False", (True, False): "self.training", (False, True): "not self.training",
}  # fmt: skip


def _dropout(call: Call) -> str:
    module = call.module
    active = _ACTIVE[module.active_in_training, module.active_in_evaluation]
    return f"functional.dropout({call.operands[0]}, {call.literal(module.p)}, {active})"


SAMPLING = (
    written_as(
        sampling.Interpolate,
        "functional.interpolate({0}, {size}, {scale_factor}, {mode}, {align_corners}, {recompute_scale_factor}, "
        "{antialias})",
    ),
    written_as(sampling.GridSample, "functional.grid_sample({0}, {1}, {mode}, {padding_mode}, {align_corners})"),
    written_as(
        sampling.SamePad, "same_pad({0}, {kernel_size}, {stride}, {dilation}, {value})", sampling.same_pad
    ),
    PythonForm(target=creation.Full, expression=_full),
    written_as(creation.Arange, "torch.arange({start}, {end}, {step}, dtype={dtype}, device={0}.device)"),
    written_as(creation.Linspace, "torch.linspace({start}, {end}, {steps}, dtype={dtype}, device={0}.device)"),
    PythonForm(target=stochastic.Random, expression=_random),
    PythonForm(target=stochastic.FunctionalDropout, expression=_dropout),
    written_as(
        stochastic.DropPath, "drop_path({0}, {drop_prob}, {scale_by_keep}, self.training)", stochastic.drop_path
    ),
    written_as(
        stochastic.StochasticDepth, "stochastic_depth({0}, {p}, {mode}, self.training)", stochastic.stochastic_depth
    ),
)  # fmt: skip

# What the graph itself recognizes, and calls of torch functions --------------------------------------------------


def _state(call: Call) -> str:
    return f"overwritten({call.place}, {call.operands[0]})" if call.operands else f"{call.place}.clone()"


_SPACES = {
    "functional": "functional",
    "tensor": "torch.Tensor",
    "torch": "torch",
    "torchvision": "torch.ops.torchvision",
}


def _torch_call(call: Call) -> str:
    space, _, name = call.module.function.partition(".")
    given = [call.literal(value) for value in call.module.arguments]
    keywords = [f"{key}={call.literal(value)}" for key, value in call.module.keywords]
    return f"{_SPACES.get(space, f'torch.{space}')}.{name}({', '.join([*given, *keywords])})"


BUILT_IN = (
    written_as(builtin_ops.GetItem, "{0}[{index}]"),
    PythonForm(target=builtin_ops.FreeParameter, expression=lambda call: call.place),
    PythonForm(target=builtin_ops.Constant, expression=lambda call: call.place),
    PythonForm(target=builtin_ops.State, expression=_state, sources=(overwritten,)),
    written_as(tensors.Keep, "{0}"),
    PythonForm(target=torch_call.TorchCall, expression=_torch_call),
)
