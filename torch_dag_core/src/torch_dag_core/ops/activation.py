"""Activation functions, as modules of torch."""

from __future__ import annotations

from torch import nn

from torch_dag_core.ops.flops import elementwise, times_output
from torch_dag_core.plugins.codecs import ModuleCodec
from torch_dag_core.plugins.declarations import declare

# Five FLOPs per element: maximum, difference, exponential, sum and division.
_SOFTMAX = times_output(5)

ACTIVATIONS = (
    declare("core.relu", nn.ReLU, aliases=("core.re_lu",), flops=elementwise),
    declare("core.relu6", nn.ReLU6, aliases=("core.re_lu6",), flops=elementwise),
    declare("core.leaky_relu", nn.LeakyReLU, aliases=("core.leaky_re_lu",), flops=elementwise),
    declare("core.prelu", nn.PReLU, aliases=("core.p_re_lu",), flops=elementwise),
    declare("core.elu", nn.ELU, flops=elementwise),
    declare("core.selu", nn.SELU, flops=elementwise),
    declare("core.celu", nn.CELU, flops=elementwise),
    declare("core.gelu", nn.GELU, flops=elementwise),
    declare("core.silu", nn.SiLU, aliases=("core.si_lu",), flops=elementwise),
    declare("core.mish", nn.Mish, flops=elementwise),
    declare("core.sigmoid", nn.Sigmoid, flops=elementwise),
    declare("core.tanh", nn.Tanh, flops=elementwise),
    declare("core.hardswish", nn.Hardswish, flops=elementwise),
    declare("core.hardsigmoid", nn.Hardsigmoid, flops=elementwise),
    # min_value and max_value are the deprecated names of min_val and max_val.
    declare(
        "core.hardtanh", nn.Hardtanh, codec=ModuleCodec(nn.Hardtanh, left_out=("min_value", "max_value")),
        flops=elementwise,
    ),
    declare("core.softplus", nn.Softplus, flops=elementwise),
    declare("core.softsign", nn.Softsign, flops=elementwise),
    declare("core.logsigmoid", nn.LogSigmoid, aliases=("core.log_sigmoid",), flops=elementwise),
    declare("core.tanhshrink", nn.Tanhshrink, flops=elementwise),
    declare("core.hardshrink", nn.Hardshrink, flops=elementwise),
    declare("core.softshrink", nn.Softshrink, flops=elementwise),
    declare("core.threshold", nn.Threshold, flops=elementwise),
    declare("core.glu", nn.GLU, flops=times_output(2)),
    declare("core.softmax", nn.Softmax, flops=_SOFTMAX),
    declare("core.softmax2d", nn.Softmax2d, flops=_SOFTMAX),
    declare("core.softmin", nn.Softmin, flops=_SOFTMAX),
    declare("core.log_softmax", nn.LogSoftmax, flops=_SOFTMAX),
)  # fmt: skip
