"""How a normalizer is declared: a function with the torch function's own parameters, after the call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch_dag_core.plugins.registry import Normalizer

Function = Callable[..., Any]
_DECLARED: dict[str, Normalizer] = {}


def normalizes(*names: str) -> Callable[[Function], Function]:
    """Declare a normalizer for the torch functions of these names; ``module:Name`` stands for a module class."""

    def declare(function: Function) -> Function:
        _DECLARED[f"{function.__module__}.{function.__qualname__}"] = Normalizer(functions=names, normalize=function)
        return function

    return declare


def declared() -> tuple[Normalizer, ...]:
    """Return every normalizer declared so far."""
    return tuple(_DECLARED.values())
