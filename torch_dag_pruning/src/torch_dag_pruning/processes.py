"""Collective operations over the processes of the default group of ``torch.distributed``, none where there is one.

All processes must call them, in the same order. A group whose backend is NCCL alone cannot communicate tensors of the
CPU, so these are moved to the current CUDA device and back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


def count() -> int:
    """Return the number of processes: 1 unless a default group is initialised."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size()


def is_first() -> bool:
    """Return whether this process has rank 0."""
    return count() == 1 or distributed.get_rank() == 0


def summed(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over the processes; the tensor itself if there is one."""
    if count() == 1:
        return tensor
    total = tensor.clone().to(_device(tensor))
    distributed.all_reduce(total)
    return total.to(tensor.device)


def averaged(tensor: Tensor) -> Tensor:
    """Return the mean of a tensor over the processes; the tensor itself if there is one."""
    return tensor if count() == 1 else summed(tensor) / count()


def sums(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the sum of each tensor over the processes."""
    return {name: summed(tensor) for name, tensor in tensors.items()}


def of_first(value: T) -> T:
    """Return the object that rank 0 passed; it is pickled."""
    if count() == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


@torch.no_grad()
def copy_first_(tensors: Iterable[Tensor]) -> None:
    """Give tensors the values that they have in rank 0, in place."""
    if count() == 1:
        return
    for tensor in tensors:
        moved = tensor.detach().to(_device(tensor)).contiguous()
        distributed.broadcast(moved, src=0)
        tensor.copy_(moved)


def _device(tensor: Tensor) -> torch.device:
    if tensor.device.type == "cpu" and distributed.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return tensor.device
