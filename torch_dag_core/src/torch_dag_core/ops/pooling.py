"""Pooling modules of torch."""

from __future__ import annotations

import math
import operator
from typing import Any

from torch import nn

from torch_dag_core.ops.flops import Parameters, Shapes, numel, per_input
from torch_dag_core.plugins.declarations import declare
from torch_dag_core.plugins.registry import FlopsRule


def window(rank: int, work: int = 1) -> FlopsRule:
    """Return a rule of ``work`` FLOPs per output element and position of a window of ``rank`` dimensions."""

    def rule(module: Any, inputs: Shapes, outputs: Shapes, parameters: Parameters) -> Any:
        del inputs, parameters
        size = module.kernel_size
        sizes = size if isinstance(size, tuple | list) else (size,) * rank
        return work * numel(outputs[0]) * math.prod(map(operator.index, sizes))  # a size may be a NumPy integer

    return rule


POOLS = (
    declare("core.max_pool1d", nn.MaxPool1d, flops=window(1)),
    declare("core.max_pool2d", nn.MaxPool2d, flops=window(2)),
    declare("core.max_pool3d", nn.MaxPool3d, flops=window(3)),
    declare("core.avg_pool1d", nn.AvgPool1d, flops=window(1)),
    declare("core.avg_pool2d", nn.AvgPool2d, flops=window(2)),
    declare("core.avg_pool3d", nn.AvgPool3d, flops=window(3)),
    declare("core.lp_pool1d", nn.LPPool1d, flops=window(1, work=2)),
    declare("core.lp_pool2d", nn.LPPool2d, flops=window(2, work=2)),
    declare("core.adaptive_avg_pool1d", nn.AdaptiveAvgPool1d, flops=per_input),
    declare("core.adaptive_avg_pool2d", nn.AdaptiveAvgPool2d, flops=per_input),
    declare("core.adaptive_avg_pool3d", nn.AdaptiveAvgPool3d, flops=per_input),
    declare("core.adaptive_max_pool1d", nn.AdaptiveMaxPool1d, flops=per_input),
    declare("core.adaptive_max_pool2d", nn.AdaptiveMaxPool2d, flops=per_input),
    declare("core.adaptive_max_pool3d", nn.AdaptiveMaxPool3d, flops=per_input),
)
