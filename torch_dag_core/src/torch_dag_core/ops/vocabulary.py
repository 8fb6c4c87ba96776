"""The core vocabulary: all ops declared by the modules of this package."""

from __future__ import annotations

from torch_dag_core import ops
from torch_dag_core.plugins.declarations import gather
from torch_dag_core.plugins.registry import OpSpec


def specs() -> tuple[OpSpec, ...]:
    """Return the specifications of all ops of the core."""
    return gather(ops.__name__, OpSpec)
