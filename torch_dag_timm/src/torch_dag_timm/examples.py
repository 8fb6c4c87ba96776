"""Small instances of timm's classes, on which the contract of plugins is tested."""

from __future__ import annotations

from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_core.plugins.registry import Examples

Case = tuple[tuple[Any, ...], dict[str, Any], tuple[int, ...]]
"""Arguments of a class by position and by name, and the shape of an input."""


def examples(target: str | Callable[..., nn.Module], *cases: Case) -> Examples:
    """Return a function that makes the examples of one class, with random but always equal weights.

    Args:
        target: The dotted name of the class, or a function that builds an instance.
        cases: Constructor arguments and input shapes, one for each example.
    """

    def build() -> list[tuple[nn.Module, tuple[Tensor, ...]]]:
        from torch_dag_core.testing.awake import awaken

        make = resolve_name(target) if isinstance(target, str) else target
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return [(awaken(make(*given, **named)), (torch.randn(shape),)) for given, named, shape in cases]

    return build
