"""The hooks of this plugin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch_dag_core.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import nn

    from torch_dag_core.plugins.registry import AtomicSpec, OpSpec

TORCH_DAG_HOOK_API = 1


@hookimpl
def torch_dag_ops() -> Iterable[OpSpec]:
    """Add the ops between and after the networks of detectors."""
    from torch_dag_core.plugins.declarations import gather
    from torch_dag_core.plugins.registry import OpSpec
    from torch_dag_torchvision import ops

    return gather(ops.__name__, OpSpec)


@hookimpl
def torch_dag_atomic_modules() -> Iterable[AtomicSpec]:
    """Add the detectors, which are traced through functions of this plugin, and the frozen batch norm."""
    from torch_dag_core.plugins.declarations import gather
    from torch_dag_core.plugins.registry import AtomicSpec
    from torch_dag_torchvision import detectors, normalization

    return (*gather(detectors.__name__, AtomicSpec), *gather(normalization.__name__, AtomicSpec))


@hookimpl
def torch_dag_example_inputs(model: nn.Module) -> tuple[Any, ...] | None:
    """Offer a batch of the size that a detector resizes its images to."""
    from torch_dag_torchvision import example_inputs

    return example_inputs.example_inputs(model)


@hookimpl(optionalhook=True)
def torch_dag_axis_rules() -> Iterable[Any]:
    """Say which channels pass the pooling of regions, and that filtered boxes stay."""
    from torch_dag_core.plugins.declarations import gather
    from torch_dag_pruning.axes.relation import AxisRule
    from torch_dag_torchvision import pruning

    return gather(pruning.__name__, AxisRule)
