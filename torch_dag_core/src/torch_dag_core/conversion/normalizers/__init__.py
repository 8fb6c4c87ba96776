"""The core's normalizers: one function for each torch function whose spelling is not already that of an op."""

from __future__ import annotations

from torch_dag_core.plugins.declarations import gather
from torch_dag_core.plugins.registry import Normalizer


def normalizers() -> tuple[Normalizer, ...]:
    """Return all of them."""
    return gather(__name__, Normalizer)
