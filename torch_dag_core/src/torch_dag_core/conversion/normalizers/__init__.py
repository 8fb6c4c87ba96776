"""The core's normalizers: one function for each torch function whose spelling is not already that of an op."""

from __future__ import annotations

import importlib

from torch_dag_core.conversion.normalizers.declaration import declared
from torch_dag_core.plugins.registry import Normalizer

_TABLES = ("arithmetic", "contraction", "creation", "indexing", "layout", "modules", "normalization", "reduction")


def normalizers() -> tuple[Normalizer, ...]:
    """Return all of them."""
    for table in _TABLES:
        importlib.import_module(f"{__name__}.{table}")
    return declared()
