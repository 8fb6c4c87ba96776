"""Devices that ops are timed on: this machine, and whatever plugins offer."""

from __future__ import annotations

import copy
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

import torch
from torch import nn
from torch.utils._pytree import tree_map

from torch_dag_core.plugins.loading import add_hookspecs, named_contributions
from torch_dag_pruning import hookspecs
from torch_dag_pruning.errors import LatencyError


@runtime_checkable
class LatencyProvider(Protocol):
    """A device, or a runtime on one, that modules can be timed on."""

    @property
    def name(self) -> str:
        """What users call it."""

    @property
    def device(self) -> str:
        """What times depend on, in words: the processor and the versions of libraries. Tables are kept apart by it."""

    def measure(self, module: nn.Module, inputs: Sequence[Any]) -> float:
        """Return the seconds that one call takes.

        Args:
            module: One op of a graph, or a whole graph, in evaluation mode. It must not be changed.
            inputs: Its operands, on the CPU: tensors, and tuples of them.
        """


@dataclass(frozen=True)
class EagerDevice:
    """A device of this machine, on which PyTorch runs modules op by op.

    Attributes:
        name: Of the device in PyTorch, such as ``"cpu"`` or ``"cuda:0"``.
        seconds: About how long one module is measured.
    """

    name: str
    seconds: float = 0.02

    @property
    def device(self) -> str:
        """The processor, the number of threads of a CPU, and the version of PyTorch."""
        if torch.device(self.name).type == "cuda":
            return f"{torch.cuda.get_device_name(self.name)}, torch {torch.__version__}"
        processor = platform.processor() or platform.machine()
        return f"{processor}, {torch.get_num_threads()} threads, torch {torch.__version__}"

    def measure(self, module: nn.Module, inputs: Sequence[Any]) -> float:
        """Return the time of one call in seconds: the least of several rounds, which other work disturbs least."""
        moved = copy.deepcopy(module).to(self.name).eval()
        operands = [tree_map(lambda tensor: tensor.to(self.name), each) for each in inputs]
        with torch.inference_mode():
            return _least_time(lambda: moved(*operands), self._wait, self.seconds)

    def _wait(self) -> None:
        if torch.device(self.name).type == "cuda":
            torch.cuda.synchronize(self.name)


_WARM_UP, _FEWEST = 2, 5


def _least_time(call: Callable[[], Any], wait: Callable[[], None], seconds: float) -> float:
    """Return the shortest time of a call among those that fit into so many seconds, at least `_FEWEST`."""
    for _ in range(_WARM_UP):
        call()
    times: list[float] = []
    while len(times) < _FEWEST or sum(times) < seconds:
        wait()
        start = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - start)
    return min(times)


_CUDA: Final = "cuda"


def own_devices() -> tuple[EagerDevice, ...]:
    """Return the devices of this machine: the CPU, and the first GPU that PyTorch can use."""
    return (EagerDevice("cpu"), *([EagerDevice(_CUDA)] if torch.cuda.is_available() else []))


def provider_named(name: str) -> LatencyProvider:
    """Return a device by name: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or what a plugin offers.

    Raises:
        LatencyError: there is none of that name, or PyTorch cannot use it.
    """
    add_hookspecs(hookspecs)
    own = {each.name: each for each in own_devices()}  # also where plugins, this library's own included, are off
    offered = own | named_contributions("torch_dag_latency", LatencyProvider)  # type: ignore[type-abstract]
    if name in offered:
        return offered[name]
    if name.partition(":")[0] != _CUDA:
        message = f"there is no device {name!r} to measure on; there are {', '.join(sorted(offered))}"
        raise LatencyError(message)
    if not torch.cuda.is_available():
        message = f"PyTorch finds no CUDA device on this machine, so nothing can be measured on {name!r}"
        raise LatencyError(message)
    return EagerDevice(name)
