"""Building models by timm's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from torch_dag_core.errors import ModelReferenceError
from torch_dag_core.plugins.model_sources import ModelList

PREFIX = "timm:"


def timm_model(reference: str, options: Mapping[str, Any]) -> nn.Module | None:
    """Build the model that ``timm:NAME`` names, by default with random weights. Return None for other references.

    Raises:
        ModelReferenceError: timm has no such model, or it cannot be built with these options.
    """
    if not reference.startswith(PREFIX):
        return None
    import timm

    name = reference.removeprefix(PREFIX)
    if not timm.is_model(name):
        message = f"timm {timm.__version__} has no model {name!r}; timm.list_models() lists them"
        raise ModelReferenceError(message)
    try:
        model: nn.Module = timm.create_model(name, **{"pretrained": False, **options})
    except Exception as error:
        message = f"{reference!r} cannot be built with {dict(options)!r}: {type(error).__name__}: {error}"
        raise ModelReferenceError(message) from error
    return model


def timm_models() -> ModelList:
    """Return the list of timm's models."""
    return ModelList(name=PREFIX.removesuffix(":"), names=_names, distribution="timm", packages=("timm",))


def _names() -> list[str]:
    import timm

    names: list[str] = timm.list_models()
    return names
