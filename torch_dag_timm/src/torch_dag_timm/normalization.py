"""timm's batch norm with an activation inside, as a batch norm and an activation."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from torch_dag_core.conversion.builder import Call, Value
from torch_dag_core.ops.normalization import FrozenBatchNorm
from torch_dag_core.plugins.registry import AtomicSpec


def norm_then_act(module: Any, x: Tensor) -> Tensor:
    """Compute what the module does, its batch norm as one call."""
    result: Tensor = module.act(module.drop(module(x)))
    return result


def convert(call: Call, module: Any, x: Value) -> Value:
    """Emit the batch norm alone, under the module's own name."""
    norm = nn.BatchNorm2d(
        module.num_features, module.eps, module.momentum, affine=module.affine,
        track_running_stats=module.track_running_stats, device="meta",
    )  # fmt: skip
    norm._parameters.update(module._parameters)
    norm._buffers.update(module._buffers)
    return call.emit(norm, x, path=call.path)


def frozen_norm_then_act(module: Any, x: Tensor) -> Tensor:
    """Compute what the module does, its arithmetic as one batch norm."""
    tensors = module.running_mean, module.running_var, module.weight, module.bias
    normalized = FrozenBatchNorm(module.eps)(x, *tensors)
    result: Tensor = module.act(module.drop(normalized))
    return result


def atomic_modules() -> tuple[AtomicSpec, ...]:
    """Return the records of the batch norms."""
    return (
        AtomicSpec(target="timm.layers.norm_act.BatchNormAct2d", convert=convert, trace_as=norm_then_act),
        AtomicSpec(target="timm.layers.norm_act.FrozenBatchNormAct2d", trace_as=frozen_norm_then_act),
    )
