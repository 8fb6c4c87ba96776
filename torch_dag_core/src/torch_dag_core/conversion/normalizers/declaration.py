"""Declaration of normalizers: functions of a call and of the arguments of a torch function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch_dag_core.plugins.declarations import attach
from torch_dag_core.plugins.registry import Normalizer

Function = TypeVar("Function", bound=Callable[..., Any])


def normalizes(*names: str) -> Callable[[Function], Function]:
    """Declare the decorated function as the normalizer of the torch functions with these names."""

    def decorate(function: Function) -> Function:
        return attach(function, Normalizer(functions=names, normalize=function))

    return decorate
