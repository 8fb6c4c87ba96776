"""Optimizers for pruned graphs, with the state (such as momenta) of the kept slots."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from torch_dag_core.graph.dag import DagModule
from torch_dag_pruning.axes import Axis
from torch_dag_pruning.removal.kept import Kept


def carried(
    optimizer: Optimizer, dag: DagModule, pruned: DagModule, kept: Kept, axes: Mapping[Tensor, Sequence[Axis]]
) -> Optimizer:
    """Return an optimizer of the same type and settings over ``pruned``, with the kept part of the state.

    Parameters that exist in ``pruned`` only, such as the bias of a removed layer, join the first parameter group.

    Args:
        optimizer: An optimizer over parameters of ``dag``.
        dag: The graph before pruning.
        pruned: The graph after pruning.
        kept: The kept slots of any axis.
        axes: The axes of the parameters of ``dag``; a parameter that is missing here is not sliced.
    """
    names: dict[Any, str] = {parameter: name for name, parameter in dag.named_parameters()}
    fresh = dict(pruned.named_parameters(remove_duplicate=False))
    groups = [
        {**group, "params": [fresh[names[p]] for p in group["params"] if names.get(p) in fresh]}
        for group in optimizer.param_groups
    ]
    old = {name for name, _ in dag.named_parameters(remove_duplicate=False)}
    groups[0]["params"] += [p for name, p in pruned.named_parameters() if name not in old and p.requires_grad]
    accepted = inspect.signature(type(optimizer)).parameters
    settings = {name: value for name, value in optimizer.defaults.items() if name in accepted}
    result = type(optimizer)(groups, **settings)
    for parameter, state in optimizer.state.items():
        name = names.get(parameter)
        if name in fresh:
            result.state[fresh[name]] = _cut(state, parameter, axes.get(parameter, ()), kept)
    return result


def _cut(state: Mapping[str, Any], parameter: Tensor, axes: Sequence[Axis], kept: Kept) -> dict[str, Any]:
    return {key: _part(value, parameter, axes, kept) for key, value in state.items()}


def _part(value: Any, parameter: Tensor, axes: Sequence[Axis], kept: Kept) -> Any:
    if not isinstance(value, Tensor):
        return value
    return kept.take(value, axes).clone() if value.shape == parameter.shape else value.clone()
