"""timm's batch norm with a built-in activation, converted into a batch norm and an activation."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from torch_dag_core.conversion.builder import Call, Value
from torch_dag_core.ops.normalization import FrozenBatchNorm
from torch_dag_core.plugins.registry import AtomicSpec
from torch_dag_timm.examples import Case, examples


def norm_then_act(module: Any, x: Tensor) -> Tensor:
    """Compute what the module does, with its batch norm as a single call."""
    return _drop_and_act(module, module(x))


def _drop_and_act(module: Any, x: Tensor) -> Tensor:
    result: Tensor = module.act(module.drop(x))
    return result


def convert(call: Call, module: Any, x: Value) -> Value:
    """Emit the batch norm without the activation, under the name of the module."""
    norm = nn.BatchNorm2d(
        module.num_features, module.eps, module.momentum, affine=module.affine,
        track_running_stats=module.track_running_stats, device="meta",
    )  # fmt: skip
    norm._parameters.update(module._parameters)
    norm._buffers.update(module._buffers)
    return call.emit(norm, x, path=call.path)


def frozen_norm_then_act(module: Any, x: Tensor) -> Tensor:
    """Compute what the module does, with its arithmetic as a single batch norm."""
    tensors = module.running_mean, module.running_var, module.weight, module.bias
    return _drop_and_act(module, FrozenBatchNorm(module.eps)(x, *tensors))


def _frozen(width: int) -> nn.Module:
    from timm.layers import BatchNormAct2d, freeze_batch_norm_2d

    from torch_dag_core.testing.awake import awaken

    frozen: nn.Module = freeze_batch_norm_2d(awaken(BatchNormAct2d(width)))
    return frozen


_IMAGE = (6, 4, 3, 3)
_NORM, _FROZEN = "timm.layers.norm_act.BatchNormAct2d", "timm.layers.norm_act.FrozenBatchNormAct2d"
_CASES: tuple[Case, ...] = (
    ((4,), {}, _IMAGE),
    ((4,), {"act_layer": nn.SiLU, "drop_layer": nn.Dropout, "eps": 0.1, "momentum": 0.3}, _IMAGE),
    ((4,), {"affine": False, "apply_act": False}, _IMAGE),
)
NORM = AtomicSpec(target=_NORM, convert=convert, trace_as=norm_then_act, examples=examples(_NORM, *_CASES))
FROZEN = AtomicSpec(target=_FROZEN, trace_as=frozen_norm_then_act, examples=examples(_frozen, ((4,), {}, _IMAGE)))
