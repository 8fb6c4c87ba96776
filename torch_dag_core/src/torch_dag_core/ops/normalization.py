"""Normalisations; ops of this module take scale and shift as operands."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from torch_dag_core.graph.op import Op
from torch_dag_core.ops.flops import Parameters, Shapes, elementwise, times_output
from torch_dag_core.plugins.codecs import ModuleCodec
from torch_dag_core.plugins.declarations import declare, op

# FLOPs per element. Layer and group norm: mean, difference, square, division, scale; RMS norm has no difference.
# Batch norm in evaluation mode: its statistics are constants, so one multiplication and one addition are left.
_LAYER_NORM = _GROUP_NORM = times_output(5)
_RMS_NORM = times_output(4)
_BATCH_NORM = times_output(2)


@op("core.layer_norm_function", flops=_LAYER_NORM)
class LayerNormFunction(Op):
    """Layer normalisation (arXiv:1607.06450)."""

    normalized_shape: tuple[int, ...]
    eps: float = 1e-5

    def forward(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Normalise x over its last dimensions, of shape ``normalized_shape``, then scale and shift."""
        return functional.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


@op("core.rms_norm_function", flops=_RMS_NORM)
class RMSNormFunction(Op):
    """Root mean square normalisation (arXiv:1910.07467)."""

    normalized_shape: tuple[int, ...]
    eps: float | None = None

    def forward(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """Normalise x over its last dimensions, of shape ``normalized_shape``, then scale."""
        return functional.rms_norm(x, self.normalized_shape, weight, self.eps)


@op("core.group_norm_function", flops=_GROUP_NORM)
class GroupNormFunction(Op):
    """Group normalisation (arXiv:1803.08494)."""

    num_groups: int
    eps: float = 1e-5

    def forward(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Normalise x (batch, channels, ...) within each group of channels, then scale and shift."""
        return functional.group_norm(x, self.num_groups, weight, bias, self.eps)


@op("core.batch_norm_function", flops=times_output(5))
class BatchNormFunction(Op):
    """Batch normalisation by the statistics of the call in both modes, as in weight standardisation."""

    eps: float = 1e-5

    def forward(self, x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
        """Normalise each channel of x (batch, channels, ...) by its statistics, then scale and shift."""
        return functional.batch_norm(x, None, None, weight, bias, training=True, momentum=0.0, eps=self.eps)


@op("core.frozen_batch_norm", flops=_BATCH_NORM)
class FrozenBatchNorm(Op):
    """Batch normalisation by given statistics in both modes."""

    eps: float = 1e-5

    def forward(
        self, x: Tensor, mean: Tensor, var: Tensor, weight: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """Normalise each channel of x (batch, channels, ...) by ``mean`` and ``var``, then scale and shift."""
        return functional.batch_norm(x, mean, var, weight, bias, training=False, momentum=0.0, eps=self.eps)


@op("core.normalize", flops=times_output(3))
class Normalize(Op):
    """Divide by the p-norm over dimensions."""

    p: float = 2.0
    dim: int | tuple[int, ...] = 1
    eps: float = 1e-12

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x / max(norm(x), eps)``, with the norm over ``dim``."""
        return functional.normalize(x, self.p, self.dim, self.eps)  # type: ignore[arg-type]


def instance_norm(module: Any, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return the FLOPs of a batch norm with running statistics, of a layer norm without."""
    rule = _BATCH_NORM if module.track_running_stats else _LAYER_NORM
    return rule(module, inputs, outputs, parameters)


def local_response_norm(module: Any, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
    """Return ``size + 5`` FLOPs per element: a square, ``size`` additions, and scale, sum, power and division."""
    return (module.size + 5) * elementwise(module, inputs, outputs, parameters)


def _codec(target: type[nn.Module]) -> ModuleCodec:
    """Return the codec of a norm whose parameter ``bias`` older releases of torch do not have."""
    return ModuleCodec(target, implied={"bias": lambda config: config["affine"]})


MODULES = (
    declare("core.batch_norm1d", nn.BatchNorm1d, codec=_codec(nn.BatchNorm1d), flops=_BATCH_NORM),
    declare("core.batch_norm2d", nn.BatchNorm2d, codec=_codec(nn.BatchNorm2d), flops=_BATCH_NORM),
    declare("core.batch_norm3d", nn.BatchNorm3d, codec=_codec(nn.BatchNorm3d), flops=_BATCH_NORM),
    declare("core.instance_norm1d", nn.InstanceNorm1d, codec=_codec(nn.InstanceNorm1d), flops=instance_norm),
    declare("core.instance_norm2d", nn.InstanceNorm2d, codec=_codec(nn.InstanceNorm2d), flops=instance_norm),
    declare("core.instance_norm3d", nn.InstanceNorm3d, codec=_codec(nn.InstanceNorm3d), flops=instance_norm),
    declare("core.layer_norm", nn.LayerNorm, flops=_LAYER_NORM),
    declare("core.group_norm", nn.GroupNorm, codec=_codec(nn.GroupNorm), flops=_GROUP_NORM),
    declare("core.rms_norm", nn.RMSNorm, flops=_RMS_NORM),
    declare("core.local_response_norm", nn.LocalResponseNorm, flops=local_response_norm),
)
