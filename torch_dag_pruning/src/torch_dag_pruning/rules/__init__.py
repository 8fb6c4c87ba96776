"""The axis rules of the core vocabulary, one function per op, in one file per family of ops.

Rules are cited by their anchors (O1, A4, ...) in docs/axis-algebra.md.
"""

from __future__ import annotations

from functools import cache

from torch_dag_core.plugins.declarations import gather
from torch_dag_pruning.axes.relation import AxisRule


@cache
def core_rules() -> tuple[AxisRule, ...]:
    """Return all axis rules declared by the modules of this package."""
    return gather(__name__, AxisRule)


__all__ = ["core_rules"]
