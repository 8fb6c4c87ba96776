"""What a graph costs on this machine: FLOPs, parameters, file size, time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_core.graph.dag import DagModule

_WARM_UP, _FEWEST, _MOST = 2, 5, 50


@dataclass(frozen=True)
class Costs:
    """Four numbers of one model.

    Attributes:
        flops: Of one sample.
        parameters: Elements of all parameters, tied ones once.
        file_bytes: Size of the saved graph.
        latency: Median seconds of one forward call.
    """

    flops: int
    parameters: int
    file_bytes: int
    latency: float

    @classmethod
    def of(cls, dag: DagModule, flops: int, path: Path, inputs: Sequence[Tensor]) -> Costs:
        """Measure a graph that is saved at ``path``."""
        parameters = sum(parameter.numel() for parameter in dag.parameters())
        return cls(flops, parameters, path.stat().st_size, median_latency(dag, inputs))


def median_latency(model: nn.Module, inputs: Sequence[Any], seconds: float = 2.0) -> float:
    """Return the median time of one call in evaluation mode, measured for about so many seconds.

    The model's modes are restored afterwards.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode():
            return _median(lambda: model(*inputs), _synchronizer(inputs), seconds)
    finally:
        for module, training in modes.items():
            module.training = training


def _median(call: Callable[[], Any], synchronize: Callable[[], None], seconds: float) -> float:
    times: list[float] = []
    for _ in range(_WARM_UP):
        call()
    while len(times) < _FEWEST or (sum(times) < seconds and len(times) < _MOST):
        synchronize()
        start = time.perf_counter()
        call()
        synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _synchronizer(inputs: Sequence[Any]) -> Callable[[], None]:
    on_gpu = any(isinstance(tensor, Tensor) and tensor.is_cuda for tensor in inputs)
    return torch.cuda.synchronize if on_gpu else lambda: None
