"""An optimizer carried over to the pruned graph: momenta of what stays are kept."""

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
    """Return an optimizer of the same kind and settings over ``pruned``, with what is left of its state.

    Parameters that only ``pruned`` has, such as a bias that stands alone now, join the first group.

    Args:
        optimizer: Over parameters of ``dag``.
        dag: The graph before pruning.
        pruned: The graph after it.
        kept: What stays of any axis.
        axes: Of the parameters of ``dag``; those left out are not cut.
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
