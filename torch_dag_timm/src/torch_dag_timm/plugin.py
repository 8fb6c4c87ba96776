"""The hooks of this plugin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch_dag_timm
from torch_dag_core.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import nn

    from torch_dag_core.plugins.model_sources import ModelList
    from torch_dag_core.plugins.registry import AtomicSpec

TORCH_DAG_HOOK_API = 1


@hookimpl
def torch_dag_atomic_modules() -> Iterable[AtomicSpec]:
    """Add timm's classes that become core ops, or that are traced through another function."""
    from torch_dag_core.plugins.declarations import gather
    from torch_dag_core.plugins.registry import AtomicSpec

    return gather(torch_dag_timm.__name__, AtomicSpec)


@hookimpl
def torch_dag_example_inputs(model: nn.Module) -> tuple[Any, ...] | None:
    """Offer an image of the size that a timm model was configured for."""
    from torch_dag_timm import example_inputs

    return example_inputs.example_inputs(model)


@hookimpl
def torch_dag_model_source(reference: str, options: Mapping[str, Any]) -> nn.Module | None:
    """Build the model that ``timm:NAME`` names."""
    from torch_dag_timm import model_source

    return model_source.timm_model(reference, options)


@hookimpl
def torch_dag_model_lists() -> Iterable[ModelList]:
    """List the models of timm."""
    from torch_dag_timm import model_source

    return (model_source.timm_models(),)
