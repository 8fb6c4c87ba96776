"""Values that a graph computes only for their effect on state."""

from __future__ import annotations

from typing import Any, ClassVar

from torch_dag_core.graph.op import Op
from torch_dag_core.ops.flops import free
from torch_dag_core.plugins.declarations import op


@op("core.keep", flops=free)
class Keep(Op):
    """Pass on a value that nothing reads, so that the state which its vertex updates is updated."""

    has_side_effect: ClassVar[bool] = True

    def forward(self, x: Any) -> Any:
        """Return ``x``."""
        return x
