"""Calls of torch functions by name, which are kept whole with everything that they touch."""

from __future__ import annotations

from torch_dag_pruning.rules.touching import kept_whole

TORCH_CALL = kept_whole("core.torch_call")
