"""Normalizers of functional normalisation and dropout."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from torch_dag_core.conversion.builder import PASS, Call, Emitted, Operand, Value
from torch_dag_core.conversion.joining import ByMode
from torch_dag_core.conversion.normalizers.declaration import normalizes
from torch_dag_core.conversion.normalizers.promotion import promote
from torch_dag_core.errors import TraceError
from torch_dag_core.ops.normalization import (
    BatchNormFunction,
    FrozenBatchNorm,
    GroupNormFunction,
    LayerNormFunction,
    RMSNormFunction,
)
from torch_dag_core.ops.stochastic import FunctionalDropout

_FOLLOWS_TRAINING = ByMode(evaluation=False, training=True)


def _affine(
    call: Call, op: nn.Module, operands: tuple[Value, ...], weight: Value | None, bias: Value | None
) -> Emitted:  # fmt: skip
    """Emit an op with these operands followed by weight and bias, unless only the bias is given."""
    if weight is None and bias is not None:
        return PASS
    return call.emit(op, *operands, *(value for value in (weight, bias) if value is not None))


@normalizes("layer_norm")
def layer_norm(
    call: Call, input: Value, normalized_shape: Sequence[int], weight: Value | None = None, bias: Value | None = None,
    eps: float = 1e-5, cudnn_enable: bool = True,
) -> Emitted:  # fmt: skip
    """Emit `nn.LayerNorm` if a module of the model owns weight and bias, otherwise `LayerNormFunction`."""
    del cudnn_enable
    shape = tuple(normalized_shape)

    def make() -> nn.Module:
        return nn.LayerNorm(shape, eps, elementwise_affine=True, bias=bias is not None, device="meta")

    promoted = promote(call, input, {"weight": weight, "bias": bias}, make, "layer_norm") if weight else None
    return promoted or _affine(call, LayerNormFunction(shape, eps), (input,), weight, bias)


@normalizes("rms_norm")
def rms_norm(
    call: Call, input: Value, normalized_shape: Sequence[int], weight: Value | None = None, eps: float | None = None
) -> Emitted:
    """Emit `nn.RMSNorm` if a module of the model owns the weight, otherwise `RMSNormFunction`."""
    shape = tuple(normalized_shape)
    make = lambda: nn.RMSNorm(shape, eps, elementwise_affine=True, device="meta")  # noqa: E731
    promoted = promote(call, input, {"weight": weight}, make, "rms_norm") if weight else None
    return promoted or _affine(call, RMSNormFunction(shape, eps), (input,), weight, None)


@normalizes("group_norm")
def group_norm(
    call: Call, input: Value, num_groups: int, weight: Value | None = None, bias: Value | None = None,
    eps: float = 1e-5, cudnn_enabled: bool = True,
) -> Emitted:  # fmt: skip
    """Emit `nn.GroupNorm` if a module of the model owns weight and bias, otherwise `GroupNormFunction`."""
    del cudnn_enabled
    channels = (input.shape or (0, 0))[1]
    make = lambda: nn.GroupNorm(num_groups, channels, eps, affine=True, device="meta")  # noqa: E731
    both = weight is not None and bias is not None
    promoted = promote(call, input, {"weight": weight, "bias": bias}, make, "group_norm") if both else None
    return promoted or _affine(call, GroupNormFunction(num_groups, eps), (input,), weight, bias)


_BATCH_NORMS: dict[int, Callable[..., nn.Module]] = {
    2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d,
}  # fmt: skip
_COUNTER = "num_batches_tracked"


@normalizes("batch_norm")
def batch_norm(
    call: Call, input: Value, running_mean: Value | None = None, running_var: Value | None = None,
    weight: Value | None = None, bias: Value | None = None, training: bool | ByMode[bool] = False,
    momentum: float | ByMode[float] = 0.1, eps: float = 1e-5, *_: Operand,
) -> Emitted:  # fmt: skip
    """Emit a batch norm, depending on the statistics that it uses.

    Without running statistics it is `BatchNormFunction`. With running statistics in both modes it is `FrozenBatchNorm`.
    If ``training`` is the mode of the model, it is a module of torch, provided that a module of the model owns the
    tensors.
    """
    if running_mean is None or running_var is None:
        return _affine(call, BatchNormFunction(eps), (input,), weight, bias) if training is True else PASS
    if training is False:
        return _affine(call, FrozenBatchNorm(eps), (input, running_mean, running_var), weight, bias)
    if training is True or training.evaluation:
        message = (
            f"batch_norm changes its running statistics in evaluation too, at {call.source}; "
            "pass training=self.training, or register the enclosing module as atomic (atomic_modules=)"
        )
        raise TraceError(message)
    if training != _FOLLOWS_TRAINING or isinstance(momentum, ByMode) or (weight is None) != (bias is None):
        return PASS
    tensors = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    prefix, dot = running_mean.held.rpartition(".")[:2]
    counter = f"{prefix}{dot}{_COUNTER}"
    channels, rank = (running_mean.shape or (0,))[0], len(input.shape or ())

    def make() -> nn.Module:
        module = _BATCH_NORMS[rank](channels, eps, momentum, affine=weight is not None)
        if counter not in call.builder.reserved:
            module._non_persistent_buffers_set.add(_COUNTER)
        return module

    promoted = promote(call, input, tensors, make, "batch_norm")
    if promoted is None:
        return PASS
    if counter in call.builder.reserved:
        call.builder.absorbed.append(counter)
    return promoted


_DROPOUTS: dict[str, Callable[..., nn.Module]] = {
    "dropout": nn.Dropout, "dropout1d": nn.Dropout1d, "dropout2d": nn.Dropout2d, "dropout3d": nn.Dropout3d,
    "alpha_dropout": nn.AlphaDropout, "feature_alpha_dropout": nn.FeatureAlphaDropout,
}  # fmt: skip


@normalizes(*_DROPOUTS)
def dropout(
    call: Call, input: Value, p: float | ByMode[float] = 0.5, training: bool | ByMode[bool] = True,
    inplace: bool = False,
) -> Emitted:  # fmt: skip
    """Emit a dropout module if the call follows the mode of the model, otherwise `FunctionalDropout`."""
    del inplace
    if isinstance(p, ByMode):
        if p.evaluation != 0.0:
            return PASS
        p, training = p.training, _FOLLOWS_TRAINING
    if training == _FOLLOWS_TRAINING:
        return call.emit(_DROPOUTS[call.name](p), input)
    if not isinstance(training, bool):
        return PASS
    if not training or not p:
        return input
    return call.emit(FunctionalDropout(p, training, training), input) if call.name == "dropout" else PASS


@normalizes("rrelu")
def rrelu(
    call: Call, input: Value, lower: float = 1 / 8, upper: float = 1 / 3, training: bool | ByMode[bool] = False,
    inplace: bool = False,
) -> Emitted:  # fmt: skip
    """A leaky ReLU with random slopes (arXiv:1505.00853): in training, never or always."""
    del inplace
    if training == _FOLLOWS_TRAINING:
        return call.emit(nn.RReLU(lower, upper), input)
    return call.emit(nn.LeakyReLU((lower + upper) / 2), input) if training is False else PASS
