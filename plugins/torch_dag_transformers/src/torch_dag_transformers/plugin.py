"""The hooks of this plugin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch_dag_core.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import nn

    from torch_dag_core.plugins.model_sources import ModelList

TORCH_DAG_HOOK_API = 1


@hookimpl
def torch_dag_example_inputs(model: nn.Module) -> tuple[Any, ...] | None:
    """Offer what a model's configuration says that it takes."""
    from torch_dag_transformers import example_inputs

    return example_inputs.example_inputs(model)


@hookimpl
def torch_dag_model_source(reference: str, options: Mapping[str, Any]) -> nn.Module | None:
    """Build the model that ``transformers:CONFIG`` names."""
    from torch_dag_transformers import model_source

    return model_source.model_of(reference, options)


@hookimpl
def torch_dag_model_lists() -> Iterable[ModelList]:
    """List the model types of transformers."""
    from torch_dag_transformers import model_source

    return (model_source.model_list(),)
