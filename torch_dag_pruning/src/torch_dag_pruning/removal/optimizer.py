"""Optimizers and averaged copies of a graph, with the state (such as momenta) of the kept slots."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from torch_dag_core.graph.dag import DagModule
from torch_dag_pruning.axes import Axis
from torch_dag_pruning.errors import RemovalError
from torch_dag_pruning.removal.kept import Kept

AxesOf = Mapping[Tensor, Sequence[Axis]]


@dataclass(frozen=True)
class Carrying:
    """Takes what belongs to the parameters of a graph over to those of the graph that was cut out of it.

    Attributes:
        dag: The graph before pruning.
        pruned: The graph after pruning.
        kept: The kept slots of any axis.
        axes: The axes of the parameters and buffers of ``dag``; a tensor that is missing here is not sliced.
    """

    dag: DagModule
    pruned: DagModule
    kept: Kept
    axes: AxesOf

    def optimizer(self, old: Optimizer) -> Optimizer:
        """Return an optimizer of the same type and settings over ``pruned``, with the kept part of the state.

        Raises:
            RemovalError: a part of the state has a form that says nothing about the slots that it belongs to.
        """
        groups, state = self._groups(old), self._state(old)
        accepted = inspect.signature(type(old)).parameters
        settings = {name: value for name, value in old.defaults.items() if name in accepted}
        result = type(old)(groups, **settings)
        result.state.update(state)
        return result

    def optimizer_(self, old: Optimizer) -> None:
        """Let an optimizer go on with the parameters of ``pruned`` and the kept part of its state.

        Raises:
            RemovalError: a part of the state has a form that says nothing about the slots that it belongs to; the
                optimizer is unchanged then.
        """
        groups, state = self._groups(old), self._state(old)
        old.param_groups[:] = groups
        old.state.clear()
        old.state.update(state)

    @torch.no_grad()
    def averaged(self, copy: nn.Module) -> DagModule:
        """Return ``pruned`` with the kept part of the weights and buffers of a copy of ``dag``.

        Tensors that only ``pruned`` has, such as the bias of a removed layer, are those of ``pruned``.
        """
        result = self.pruned.clone()
        averaged = {**dict(copy.named_parameters(remove_duplicate=False)), **dict(copy.named_buffers())}
        own = {**dict(self.dag.named_parameters(remove_duplicate=False)), **dict(self.dag.named_buffers())}
        for name, tensor in {**dict(result.named_parameters()), **dict(result.named_buffers())}.items():
            if name in own and name in averaged:
                tensor.copy_(self.kept.take(averaged[name], self.axes.get(own[name], ())))
        return result

    def _groups(self, old: Optimizer) -> list[dict[str, Any]]:
        """Return the parameter groups over ``pruned``; parameters that only it has join the first one."""
        names = self._names()
        fresh = dict(self.pruned.named_parameters(remove_duplicate=False))
        groups = [{**group, "params": list(_over(group["params"], names, fresh))} for group in old.param_groups]
        known = {name for name, _ in self.dag.named_parameters(remove_duplicate=False)}
        groups[0]["params"] += [
            p for name, p in self.pruned.named_parameters() if name not in known and p.requires_grad
        ]
        return groups

    def _state(self, old: Optimizer) -> dict[Tensor, Any]:
        names = self._names()
        fresh = dict(self.pruned.named_parameters(remove_duplicate=False))
        found: dict[Tensor, Any] = {}
        for parameter, state in old.state.items():
            name = names.get(parameter)
            if name is None:
                found[parameter] = state
            elif name in fresh:
                found[fresh[name]] = {key: self._part(name, key, value, parameter) for key, value in state.items()}
        return found

    def _names(self) -> dict[Any, str]:
        return {parameter: name for name, parameter in self.dag.named_parameters()}

    def _part(self, name: str, key: str, value: Any, parameter: Tensor) -> Any:
        """Return the kept part of one entry of the state of a parameter."""
        if not isinstance(value, Tensor):
            return value
        axes = self.axes.get(parameter, ())
        if value.shape == parameter.shape:
            return self.kept.take(value, axes).clone()
        if value.numel() <= 1 or self.kept.is_whole(axes):
            return value.clone()
        message = (
            f"the optimizer's state {key!r} of {name!r} has the shape {tuple(value.shape)}, which is not that of the "
            f"parameter, {tuple(parameter.shape)}, so it cannot be cut; start a new optimizer after the removal"
        )
        raise RemovalError(name, message)


def _over(parameters: Sequence[Tensor], names: Mapping[Tensor, str], fresh: Mapping[str, nn.Parameter]) -> Any:
    """Iterate over the parameters of a group after pruning; those of other modules stay."""
    for parameter in parameters:
        name = names.get(parameter)
        if name is None:
            yield parameter
        elif name in fresh:
            yield fresh[name]
