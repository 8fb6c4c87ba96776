"""How long models take for one call on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_WARM_UP, _FEWEST, _MOST = 2, 5, 50


def median_latencies(models: Sequence[nn.Module], inputs: Sequence[Any], seconds: float = 4.0) -> list[float]:
    """Return the median time of one call of each model in evaluation mode, in seconds.

    The models take turns, so that whatever else the machine does slows all of them. Their modes are restored.

    Args:
        models: What is timed.
        inputs: The arguments of each call.
        seconds: About how long to measure.
    """
    modes = {module: module.training for model in models for module in model.modules()}
    for model in models:
        model.eval()
    try:
        with torch.inference_mode():
            return [statistics.median(times) for times in zip(*_rounds(models, inputs, seconds), strict=True)]
    finally:
        for module, training in modes.items():
            module.training = training


def _rounds(models: Sequence[nn.Module], inputs: Sequence[Any], seconds: float) -> list[list[float]]:
    """Return the times of one call of every model, for each round after the first ones."""
    synchronize = _synchronizer(inputs)
    rounds: list[list[float]] = []
    for number in range(-_WARM_UP, _MOST):
        times = [_timed(model, inputs, synchronize) for model in models]
        if number >= 0:
            rounds.append(times)
        if len(rounds) >= _FEWEST and sum(map(sum, rounds)) >= seconds:
            break
    return rounds


def _timed(model: nn.Module, inputs: Sequence[Any], synchronize: Callable[[], None]) -> float:
    synchronize()
    start = time.perf_counter()
    model(*inputs)
    synchronize()
    return time.perf_counter() - start


def _synchronizer(inputs: Sequence[Any]) -> Callable[[], None]:
    on_gpu = any(isinstance(tensor, Tensor) and tensor.is_cuda for tensor in inputs)
    return torch.cuda.synchronize if on_gpu else lambda: None
