"""Models by name: the record of those that a plugin can list, and the models of torchvision, which the core answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from torch_dag_core.errors import ModelReferenceError
from torch_dag_core.plugins.record_checks import CALLABLE, Kind, check_fields

if TYPE_CHECKING:
    from torch import Tensor, nn

_TEXT = Kind("a string that is not empty", lambda value: isinstance(value, str) and bool(value))
_PACKAGES = Kind("a tuple of names", lambda value: isinstance(value, tuple) and all(isinstance(v, str) for v in value))

PREFIX = "torchvision:"
_INPUTS: dict[str, tuple[tuple[int, ...], ...]] = {
    "torchvision.models.inception.Inception3": ((3, 299, 299),),
    "torchvision.models.quantization.inception.QuantizableInception3": ((3, 299, 299),),
    "torchvision.models.video.s3d.S3D": ((3, 16, 224, 224),),
    "torchvision.models.optical_flow.raft.RAFT": ((3, 128, 128), (3, 128, 128)),
}
"""What the models of torchvision take that the first layer does not tell, by class: sizes without the batch."""


@dataclass(frozen=True, kw_only=True)
class ModelList:
    """The models under one prefix, for commands that go through all of them.

    Attributes:
        name: The prefix without its colon: references are ``NAME:MODEL``.
        names: Returns the names of the models; called only when they are needed.
        distribution: The distribution whose release decides what the models are.
        packages: Packages worth importing once, before many models are built.
    """

    name: str
    names: Callable[[], Iterable[str]]
    distribution: str
    packages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            TypeError: a field has a wrong value.
        """
        check_fields(self, {"name": _TEXT, "names": CALLABLE, "distribution": _TEXT, "packages": _PACKAGES})


def torchvision_models() -> ModelList:
    """Return the list of torchvision's models."""
    return ModelList(
        name="torchvision", names=_torchvision_names, distribution="torchvision", packages=("torchvision.models",)
    )


def _torchvision_names() -> list[str]:
    try:
        from torchvision import models
    except ImportError as error:
        message = f"torchvision cannot be imported ({error}); pip install torchvision"
        raise ModelReferenceError(message) from error
    return cast("list[str]", models.list_models())


def torchvision_model(reference: str, options: Mapping[str, Any]) -> nn.Module | None:
    """Build the model that ``torchvision:NAME`` names, by default without weights; None for other references.

    The option ``pretrained=True`` asks for torchvision's default weights.

    Raises:
        ModelReferenceError: torchvision is not installed, has no such model, or it cannot be built with these options.
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
    given = dict(options)
    weights = "DEFAULT" if given.pop("pretrained", False) else None
    try:
        return cast("nn.Module", models.get_model(name, **{"weights": weights, **given}))
    except Exception as error:
        message = f"{reference!r} cannot be built with {dict(options)!r}: {type(error).__name__}: {error}"
        raise ModelReferenceError(message) from error


def torchvision_inputs(model: nn.Module) -> tuple[Tensor, ...] | None:
    """Return two samples of zeros for the models of torchvision that need other sizes than their first layer tells."""
    sizes = _INPUTS.get(f"{type(model).__module__}.{type(model).__qualname__}")
    if sizes is None:
        return None
    import torch

    return tuple(torch.zeros(2, *size) for size in sizes)
