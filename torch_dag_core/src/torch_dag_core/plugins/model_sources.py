"""Models by name, for the references that the core itself answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import nn

from torch_dag_core.errors import ModelReferenceError

PREFIX = "torchvision:"


def torchvision_model(reference: str, options: Mapping[str, Any]) -> nn.Module | None:
    """Build the model that ``torchvision:NAME`` names, without weights; None for other references.

    Raises:
        ModelReferenceError: torchvision is not installed, or has no such model.
    """
    if not reference.startswith(PREFIX):
        return None
    try:
        from torchvision import models
    except ImportError as error:
        message = f"{reference!r} needs torchvision, which cannot be imported ({error}); pip install torchvision"
        raise ModelReferenceError(message) from error
    name = reference.removeprefix(PREFIX)
    if name not in models.list_models():
        message = f"torchvision has no model {name!r}; torchvision.models.list_models() lists them"
        raise ModelReferenceError(message)
    return cast("nn.Module", models.get_model(name, **{"weights": None, **options}))
