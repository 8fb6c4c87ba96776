"""Hooks that the pruning plugin adds to the core's; a plugin implements them with ``optionalhook=True``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch_dag_core.plugins.hookspecs import hookspec

if TYPE_CHECKING:
    from torch_dag_pruning.axes.relation import AxisRule
    from torch_dag_pruning.latency.providers import LatencyProvider
    from torch_dag_pruning.plan.criteria import ImportanceCriterion


@hookspec
def torch_dag_axis_rules() -> Iterable[AxisRule]:
    """Add rules that say how ops relate the axes of their tensors."""


@hookspec
def torch_dag_importance_criteria() -> Iterable[ImportanceCriterion]:
    """Add scores by which slots are kept or removed."""


@hookspec
def torch_dag_latency() -> Iterable[LatencyProvider]:
    """Add devices and runtimes that latency is measured on."""
