"""The hooks of this plugin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from torch_dag_core.plugins.declarations import gather
from torch_dag_core.plugins.hookspecs import hookimpl
from torch_dag_core.plugins.registry import AtomicSpec, OpSpec
from torch_dag_torchvision import detectors, example_inputs, normalization, ops

TORCH_DAG_HOOK_API = 1


@hookimpl
def torch_dag_ops() -> Iterable[OpSpec]:
    """Add the ops between and after the networks of detectors."""
    return gather(ops.__name__, OpSpec)


@hookimpl
def torch_dag_atomic_modules() -> Iterable[AtomicSpec]:
    """Add the detectors, which are traced through functions of this plugin, and the frozen batch norm."""
    return (*gather(detectors.__name__, AtomicSpec), *gather(normalization.__name__, AtomicSpec))


@hookimpl
def torch_dag_example_inputs(model: nn.Module) -> tuple[Any, ...] | None:
    """Offer a batch of the size that a detector resizes its images to."""
    return example_inputs.example_inputs(model)


@hookimpl(optionalhook=True)
def torch_dag_axis_rules() -> Iterable[Any]:
    """Say which channels pass the pooling of regions, and that filtered boxes stay."""
    from torch_dag_pruning.axes.relation import AxisRule
    from torch_dag_torchvision import pruning

    return gather(pruning.__name__, AxisRule)
