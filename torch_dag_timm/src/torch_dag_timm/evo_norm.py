"""timm's EvoNorm-B (arXiv:2004.02967), traced so that it works for batches and images of any size.

timm scales its running variance by a correction that contains the number of samples as a Python number. Tracing timm's
own code would make a constant of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from torch_dag_core.plugins.registry import AtomicSpec
from torch_dag_timm.examples import Case, examples

_CHANNELS = (1, -1, 1, 1)
_PLACES = (2, 3)
_SAMPLES = (0, 2, 3)
_CASES: tuple[Case, ...] = (((6,), {}, (3, 6, 5, 4)), ((6,), {"momentum": 0.3, "eps": 0.1}, (2, 6, 4, 4)))


def _variance(module: Any, x: Tensor) -> Tensor:
    """Return the variance of each channel (C,): in training that of the batch, which also updates the running one."""
    remembered: Tensor = module.running_var
    if not module.training:
        return remembered
    unbiased = x.var(_SAMPLES).detach().to(remembered.dtype)
    remembered.copy_(remembered * (1 - module.momentum) + unbiased * module.momentum)
    biased: Tensor = x.var(_SAMPLES, unbiased=False)
    return biased


def _root(variance: Tensor, eps: float) -> Tensor:
    return (variance + eps).sqrt()


def _root_mean_square(module: Any, x: Tensor) -> Tensor:
    mean = x.float().square().mean(_PLACES, keepdim=True)
    return _root(mean, module.eps).to(x.dtype)


def _b0(module: Any, x: Tensor) -> Tensor:
    slope: Tensor = module.v
    deviation = _root(x.float().var(_PLACES, unbiased=False, keepdim=True), module.eps)
    return x * slope.to(x.dtype).view(_CHANNELS) + deviation.to(x.dtype)


def _b1(module: Any, x: Tensor) -> Tensor:
    return (x + 1) * _root_mean_square(module, x)


def _b2(module: Any, x: Tensor) -> Tensor:
    return _root_mean_square(module, x) - x


def _norm(of_instance: Callable[[Any, Tensor], Tensor]) -> Callable[[Any, Tensor], Tensor]:
    """Return the norm that divides by the maximum of the batch's standard deviation and ``of_instance``."""

    def norm(module: Any, x: Tensor) -> Tensor:
        tensors: tuple[Tensor, Tensor] = module.weight, module.bias
        weight, bias = (tensor.to(x.dtype).view(_CHANNELS) for tensor in tensors)
        if module.apply_act:
            of_batch = _root(_variance(module, x.float()), module.eps).to(x.dtype).view(_CHANNELS)
            x = x / torch.maximum(of_batch, of_instance(module, x))
        return x * weight + bias

    return norm


_DIVISORS = {
    "timm.layers.evo_norm.EvoNorm2dB0": _b0,
    "timm.layers.evo_norm.EvoNorm2dB1": _b1,
    "timm.layers.evo_norm.EvoNorm2dB2": _b2,
}
# The norms of the S series can be traced as they are.
NORMS = tuple(
    AtomicSpec(target=name, trace_as=_norm(divisor), examples=examples(name, *_CASES))
    for name, divisor in _DIVISORS.items()
)
