"""The hooks that channel pruning implements."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch_dag_core.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    import click
    from torch import Tensor, nn

    from torch_dag_core.algorithms.algorithm import AlgorithmSpec
    from torch_dag_core.cli.coverage.check import CoverageCheck
    from torch_dag_core.graph.dag import DagModule
    from torch_dag_core.plugins.graph_formats import Overlay
    from torch_dag_core.plugins.registry import OpSpec
    from torch_dag_core.testing.checks import ContractCheck
    from torch_dag_pruning.latency.providers import LatencyProvider


@hookimpl
def torch_dag_ops() -> Iterable[OpSpec]:
    """Add the op that lays a mask over an edge."""
    from torch_dag_core.ops.flops import elementwise
    from torch_dag_core.plugins.codecs import OpCodec
    from torch_dag_core.plugins.registry import OpSpec
    from torch_dag_pruning.masked_ops.mask import Mask

    return (OpSpec(key="pruning.mask", target=Mask, codec=OpCodec(Mask), flops=elementwise, examples=_masks),)


def _masks() -> Iterable[tuple[nn.Module, tuple[Tensor, ...]]]:
    """Return a mask with an operand, for the contract of plugins."""
    import torch

    from torch_dag_pruning.masked_ops.mask import Mask

    return [(Mask.of(torch.tensor([1.0, 0.0, 0.5, 1.0])), (torch.ones(2, 4),))]


@hookimpl
def torch_dag_algorithms() -> Iterable[AlgorithmSpec]:
    """Add channel pruning, at once and learned."""
    from torch_dag_pruning.learning.spec import SPEC as LEARNED
    from torch_dag_pruning.one_shot_spec import SPEC as ONE_SHOT

    return ONE_SHOT, LEARNED


@hookimpl
def torch_dag_commands() -> Iterable[click.Command]:
    """Add ``torch-dag prune``, ``inspect``, ``sensitivity``, ``sweep`` and ``sweep-plot``."""
    from torch_dag_pruning.cli.command import prune
    from torch_dag_pruning.cli.inspection import inspect
    from torch_dag_pruning.cli.sensitivity import sensitivity
    from torch_dag_pruning.cli.sweep import sweep, sweep_plot

    return (prune, inspect, sensitivity, sweep, sweep_plot)


@hookimpl
def torch_dag_overlays(dag: DagModule) -> Iterable[Overlay]:
    """Show each orbit in pictures."""
    from torch_dag_pruning.analysis.overlays import orbit_overlays

    return orbit_overlays(dag)


@hookimpl
def torch_dag_contract_checks() -> Iterable[ContractCheck]:
    """Add that ops are pruned exactly."""
    from torch_dag_pruning.contract import CHECKS

    return CHECKS


@hookimpl(optionalhook=True)
def torch_dag_latency() -> Iterable[LatencyProvider]:
    """Add the devices of this machine."""
    from torch_dag_pruning.latency.providers import own_devices

    return own_devices()


@hookimpl
def torch_dag_coverage_checks() -> Iterable[CoverageCheck]:
    """Add what can be removed of a model, and the proof of a random removal."""
    from torch_dag_pruning.coverage import CHECKS

    return CHECKS
