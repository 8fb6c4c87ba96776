"""What pruning adds to the contract of plugins: what they register is pruned exactly, or what touches it stays."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_core.errors import PluginError, TorchDagError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.plugins.registry import Registry
from torch_dag_core.testing.cases import Case, run
from torch_dag_core.testing.checks import ContractCheck, ContractError
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.cut import remove_channels
from torch_dag_pruning.errors import PruningWarning
from torch_dag_pruning.plan.plan import Plan

_SEEDS = range(3)
_CLASSES = 3


def prunes(case: Case) -> None:
    """Between learned layers, a module computes with random slots removed what it computes with them masked.

    Raises:
        ContractError: it does not, or the analysis of the graph fails.
        PluginError: a rule failed, or contradicts its op.
    """
    for dag, inputs in _sandwiches(case):
        try:
            _prune(dag, inputs, case.registry)
        except PluginError:
            raise
        except TorchDagError as error:
            message = f"{case.name}: between learned layers it is not pruned exactly: {error}"
            raise ContractError(message) from error


def _prune(dag: DagModule, inputs: tuple[Tensor, ...], registry: Registry) -> None:
    analysis = analyze(dag, inputs, registry=registry)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PruningWarning)  # a module may well not depend on what was removed
        for seed in _SEEDS if analysis.orbits else ():
            remove_channels(dag, Plan.random(analysis, 0.5, seed), verify=True, analysis=analysis)


class Sandwich(nn.Module):
    """A module between learned layers, over the last dimension of operands and results or the second."""

    def __init__(self, case: Case, dim: int) -> None:
        super().__init__()
        self.before = nn.ModuleList(
            _layer(operand, dim) if _is_learnable(operand, dim) else nn.Identity() for operand in case.inputs
        )
        self.module = _awake_module(case.module)
        result = run(case.module, case.inputs)
        is_followed = isinstance(result, Tensor) and _is_learnable(result, dim)
        self.after = _layer(result, dim, _CLASSES) if is_followed else nn.Identity()

    def forward(self, *inputs: Any) -> Any:
        """Return what the last layer makes of the module's result."""
        operands = [layer(operand) for layer, operand in zip(self.before, inputs, strict=True)]
        return self.after(self.module(*operands))


def _sandwiches(case: Case) -> Iterator[tuple[DagModule, tuple[Tensor, ...]]]:
    """Iterate over graphs in which learned layers make the operands, and inputs for them."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for dim in (-1, 1):
            dag = replace(case, module=Sandwich(case, dim)).converted()
            yield dag.eval(), tuple(map(_awake, case.inputs))


def _is_learnable(tensor: Tensor, dim: int) -> bool:
    fits = tensor.dim() >= 2 if dim == -1 else tensor.dim() in _CONVOLUTIONS
    return tensor.dtype == torch.float32 and fits


_CONVOLUTIONS: dict[int, type[nn.Module]] = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}


def _layer(tensor: Tensor, dim: int, width: int | None = None) -> nn.Module:
    size = tensor.shape[dim]
    if dim == -1:
        return nn.Linear(size, width or size)
    return _CONVOLUTIONS[tensor.dim()](size, width or size, 1)


def _awake(tensor: Tensor) -> Tensor:
    """Return an input that differs from sample to sample; indices and flags stay."""
    return torch.randn_like(tensor) if tensor.is_floating_point() else tensor


def _awake_module(module: nn.Module) -> nn.Module:
    """Return a copy without zeros and ones that would hide what depends on a parameter."""
    twin = copy.deepcopy(module)
    for parameter in twin.parameters():
        if parameter.is_floating_point():
            parameter.uniform_(0.5, 1.5)
    return twin


def _can_be_placed(case: Case) -> bool:
    learnable = [
        isinstance(operand, Tensor) and _is_learnable(operand, dim) for operand in case.inputs for dim in (-1, 1)
    ]
    return any(learnable) and all(isinstance(operand, Tensor) for operand in case.inputs)


CHECKS = (ContractCheck("prunes", prunes, _can_be_placed),)
