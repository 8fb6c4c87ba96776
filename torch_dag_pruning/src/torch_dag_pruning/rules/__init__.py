"""The axis rules of the core vocabulary: one small function an op, in the file of its family."""

from __future__ import annotations

from functools import cache

from torch_dag_core.plugins.declarations import gather
from torch_dag_pruning.axes.relation import AxisRule


@cache
def core_rules() -> tuple[AxisRule, ...]:
    """Return the rules that the modules of this package declare."""
    return gather(__name__, AxisRule)


__all__ = ["core_rules"]
