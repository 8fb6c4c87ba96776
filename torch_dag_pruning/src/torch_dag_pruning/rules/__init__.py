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


@cache
def core_keys() -> frozenset[str]:
    """Return the keys of all ops that these rules describe."""
    return frozenset(key for rule in core_rules() for key in rule.keys)


__all__ = ["core_keys", "core_rules"]
