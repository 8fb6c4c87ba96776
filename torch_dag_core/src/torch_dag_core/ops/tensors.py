"""The op for values that are computed only to update state."""

from __future__ import annotations

from typing import Any, ClassVar

from torch_dag_core.graph.op import Op
from torch_dag_core.ops.flops import free
from torch_dag_core.plugins.declarations import op


@op("core.keep", flops=free)
class Keep(Op):
    """Return the operand; keeps a vertex that nothing reads but that updates state, such as a batch norm."""

    has_side_effect: ClassVar[bool] = True

    def forward(self, x: Any) -> Any:
        """Return ``x``."""
        return x
