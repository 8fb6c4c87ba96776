"""The core vocabulary: the ops that the modules of this package declare."""

from __future__ import annotations

from torch_dag_core import ops
from torch_dag_core.plugins.declarations import gather
from torch_dag_core.plugins.registry import OpSpec


def specs() -> tuple[OpSpec, ...]:
    """Return the records of all ops of the core."""
    return gather(ops.__name__, OpSpec)
