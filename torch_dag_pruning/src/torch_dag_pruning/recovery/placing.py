"""Putting a correction into a graph: the weights, and the shift into a bias or the mean of the batch norm behind."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_core.plugins.registry import Registry
from torch_dag_pruning.recovery.joins import BATCH_NORMS
from torch_dag_pruning.recovery.solving import Correction
from torch_dag_pruning.statistics.contractions import Contraction


@dataclass(frozen=True)
class Placing:
    """Puts corrections into one graph.

    Attributes:
        dag: The graph, which is changed.
        registry: Has the codecs of its modules.
        calls: The vertices that call each module.
    """

    dag: DagModule
    registry: Registry
    calls: MutableMapping[nn.Module, list[InnerVertex]]

    @torch.no_grad()
    def place(self, vertex: InnerVertex, contraction: Contraction, correction: Correction) -> None:
        """Correct the module of a vertex, for all vertices that call it.

        The shift goes into the bias. A layer without one that a batch norm alone reads leaves it to the running mean
        of that; another one gets a bias.

        Args:
            vertex: The vertex.
            contraction: How its module multiplies.
            correction: What to add.
        """
        module: Any = vertex.module
        if correction.weight is not None:
            matrix = contraction.matrix(module, module.weight.to(torch.float64)) + correction.weight
            module.weight.copy_(contraction.weight(module, matrix))
        shift = correction.shift.flatten()
        if not bool(shift.any()):
            return
        norm = self._norm_behind(vertex, contraction) if module.bias is None else None
        if norm is not None:
            norm.running_mean.copy_(norm.running_mean.to(torch.float64) - shift)
            return
        if module.bias is None:
            module = self._with_bias(vertex, shift.numel())
        module.bias.copy_(module.bias.to(torch.float64) + shift)

    def give_bias(self, vertex: InnerVertex, contraction: Contraction) -> None:
        """Let the module of a vertex have a bias, of zeros if it has none."""
        module: Any = vertex.module
        if module.bias is None:
            groups, outs, _ = contraction.matrix(module, module.weight).shape
            self._with_bias(vertex, groups * outs)

    def _norm_behind(self, vertex: InnerVertex, contraction: Contraction) -> Any:
        """Return the batch norm with running statistics that alone reads a convolution; None if there is none."""
        users = [user for user, _ in vertex.uses]
        if len(users) != 1 or contraction.channel != 1 or not isinstance(users[0], InnerVertex):
            return None
        module: Any = users[0].module
        spec = self.registry.for_module(module)
        is_norm = spec is not None and spec.key in BATCH_NORMS and module.running_mean is not None
        return module if is_norm and len(self.calls[module]) == len(self.calls[vertex.module]) == 1 else None

    def _with_bias(self, vertex: InnerVertex, outs: int) -> Any:
        """Replace a module, wherever it is called, by an equal one with a bias of zeros, and return that."""
        old: Any = vertex.module
        new = with_bias(old, outs, self.registry)
        self.calls[new] = self.calls.pop(old)
        for caller in self.calls[new]:
            self.dag.replace_module(caller, new)
        return new


def with_bias(module: Any, outs: int, registry: Registry) -> Any:
    """Return a module that has the tensors of another one, and a bias of ``outs`` zeros."""
    spec = registry.for_module(module)
    assert spec is not None
    assert spec.codec is not None
    new: Any = spec.codec.build({**spec.codec.config(module), "bias": True})
    for name, tensor in module._parameters.items():
        new._parameters[name] = tensor
    new.bias = nn.Parameter(module.weight.new_zeros(outs), requires_grad=module.weight.requires_grad)
    return new.train(module.training)
