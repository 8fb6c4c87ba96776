"""The op vocabulary: modules whose constants are declared, one class for each thing a graph can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch_dag_core.plugins.registry import OpSpec


def specs() -> list[OpSpec]:
    """Return the records of the core vocabulary."""
    from torch_dag_core.ops.vocabulary import specs as build

    return build()
