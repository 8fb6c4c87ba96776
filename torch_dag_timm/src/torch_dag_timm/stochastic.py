"""timm's stochastic depth as the core's op."""

from __future__ import annotations

from typing import Any

from torch_dag_core.conversion.builder import Call, Value
from torch_dag_core.ops.stochastic import DropPath
from torch_dag_core.plugins.registry import AtomicSpec


def convert(call: Call, module: Any, x: Value) -> Value:
    """Emit the op; a rate of zero is nothing."""
    if not module.drop_prob:
        return x
    return call.emit(DropPath(float(module.drop_prob), bool(module.scale_by_keep)), x, path=call.path)


def atomic_modules() -> tuple[AtomicSpec, ...]:
    """Return the record of DropPath."""
    return (AtomicSpec(target="timm.layers.drop.DropPath", convert=convert),)
