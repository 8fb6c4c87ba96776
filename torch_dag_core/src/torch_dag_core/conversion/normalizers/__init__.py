"""The normalizers of the core, which turn calls of torch functions into ops.

Functions that have the signature of their op need no normalizer.
"""

from __future__ import annotations

from torch_dag_core.plugins.declarations import gather
from torch_dag_core.plugins.registry import Normalizer


def normalizers() -> tuple[Normalizer, ...]:
    """Return all normalizers declared by the modules of this package."""
    return gather(__name__, Normalizer)
