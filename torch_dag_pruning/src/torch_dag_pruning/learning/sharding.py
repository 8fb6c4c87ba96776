"""Networks whose parameters are spread over processes by FSDP2 (``torch.distributed.fsdp.fully_shard``).

Sharding replaces the parameters of a network by others of the same names, so what refers to the old ones has to be
pointed to the new ones: optimizers, and the analysed graph when channels are removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_sharded(tensor: Tensor) -> TypeGuard[DTensor]:
    """Return whether a tensor is spread over processes."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def whole(value: Any) -> Any:
    """Return the full tensor of one that is spread over processes, and anything else as it is."""
    return value.full_tensor() if isinstance(value, Tensor) and is_sharded(value) else value


def shard_(network: nn.Module, shard: Callable[[Any], object], *optimizers: Optimizer) -> None:
    """Shard a network in place, and let optimizers over its parameters go on with the sharded ones.

        pruning.attach(optimizer)
        shard_(pruning.network, fully_shard, optimizer)
        ...
        if pruning.step():
            shard_(pruning.network, fully_shard, optimizer)

    Args:
        network: The network; its parameters are replaced.
        shard: Shards a network in place: ``fully_shard``, or a function that calls it for parts of the network first.
        *optimizers: Optimizers over the present parameters. They stay the same objects, and their state is sharded as
            the parameter that it belongs to.
    """
    names = {parameter: name for name, parameter in network.named_parameters()}
    shard(network)
    fresh = dict(network.named_parameters())
    for optimizer in optimizers:
        _point_to_(optimizer, {parameter: fresh[name] for parameter, name in names.items()}, _like)


def unshard_(network: nn.Module, plain: nn.Module, optimizers: Iterable[Optimizer]) -> bool:
    """Copy sharded weights into a graph with the same names, and let optimizers go on with its parameters.

    Args:
        network: The network, which may be sharded.
        plain: A graph that has the names and shapes of the network.
        optimizers: Optimizers over parameters of the network.

    Returns:
        Whether the network was sharded; nothing is done otherwise.
    """
    sharded = {name: tensor for name, tensor in network.named_parameters() if is_sharded(tensor)}
    if not sharded:
        return False
    own = dict(plain.named_parameters())
    fill_(plain, network)
    for optimizer in optimizers:
        _point_to_(optimizer, {tensor: own[name] for name, tensor in sharded.items()}, lambda value, _: whole(value))
    return True


@torch.no_grad()
def fill_(plain: nn.Module, network: nn.Module) -> None:
    """Copy the weights and buffers of a network, sharded or not, into a graph with the same names."""
    own = plain.state_dict(keep_vars=True)
    for name, tensor in network.state_dict(keep_vars=True).items():
        full = whole(tensor.detach())
        if own[name] is not tensor:
            own[name].copy_(full)


def _point_to_(
    optimizer: Optimizer, replaced: Mapping[Tensor, nn.Parameter], convert: Callable[[Any, Tensor], Any]
) -> None:
    """Replace parameters in the groups and the state of an optimizer, in place."""
    for group in optimizer.param_groups:
        group["params"] = [replaced.get(parameter, parameter) for parameter in group["params"]]
    for old in [parameter for parameter in optimizer.state if parameter in replaced]:
        state = optimizer.state.pop(old)
        optimizer.state[replaced[old]] = {key: convert(value, replaced[old]) for key, value in state.items()}


def _like(value: Any, parameter: Tensor) -> Any:
    """Return an entry of an optimizer's state, sharded as its parameter if it has the parameter's shape."""
    if not is_sharded(parameter) or not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, parameter.device_mesh, parameter.placements)


def replicated(network: nn.Module) -> list[Tensor]:
    """Return the parameters and buffers that each process has as a whole."""
    return [tensor for tensor in network.state_dict(keep_vars=True).values() if not is_sharded(tensor)]
