"""Calls of torch functions by name have no axis rule: everything that they touch is frozen (O16)."""

from __future__ import annotations

from torch_dag_pruning.rules.touching import kept_whole

TORCH_CALL = kept_whole("core.torch_call")
