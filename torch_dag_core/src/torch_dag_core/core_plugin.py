"""The core's own plugin: the vocabulary, atomic modules and normalizers of the core, added through the public hooks.

Like any plugin that `torch-dag --help` loads, it imports torch only inside of its hooks.

Importing `torch_dag_core` hands this module to `torch_dag_core.plugins.loading`, so that no module below imports it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from torch_dag_core.plugins import model_sources
from torch_dag_core.plugins.hookspecs import hookimpl
from torch_dag_core.plugins.model_sources import ModelList

if TYPE_CHECKING:
    from torch import nn

    from torch_dag_core.plugins.registry import AtomicSpec, Normalizer, OpSpec


@hookimpl
def torch_dag_ops() -> Iterable[OpSpec]:
    """Add the core vocabulary."""
    from torch_dag_core.ops import vocabulary

    return vocabulary.specs()


@hookimpl
def torch_dag_atomic_modules() -> Iterable[AtomicSpec]:
    """Add torch's module classes that are not ops."""
    from torch_dag_core import conversion

    return conversion.atomic_modules()


@hookimpl
def torch_dag_normalizers() -> Iterable[Normalizer]:
    """Add the conversions into the core vocabulary."""
    from torch_dag_core import conversion

    return conversion.normalizers()


@hookimpl
def torch_dag_example_inputs(model: nn.Module) -> tuple[Any, ...] | None:
    """Offer inputs for some models of torchvision."""
    return model_sources.torchvision_inputs(model)


@hookimpl
def torch_dag_model_source(reference: str, options: Mapping[str, Any]) -> nn.Module | None:
    """Build the models of torchvision, if that is installed."""
    return model_sources.torchvision_model(reference, options)


@hookimpl
def torch_dag_model_lists() -> Iterable[ModelList]:
    """List the models of torchvision."""
    return (model_sources.torchvision_models(),)
