"""The axes of the values and operands of an analysed graph, also while it is being cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch_dag_core.graph.builtin_ops import Constant
from torch_dag_core.graph.vertex import InnerVertex, UserVertex, Vertex
from torch_dag_pruning.axes import Axis

if TYPE_CHECKING:
    from torch_dag_pruning.analysis.analysis import Analysis


class ValueAxes:
    """Looks up the axes of values by vertex name; vertices that the analysis did not see have none."""

    def __init__(self, analysis: Analysis) -> None:
        self.analysis = analysis
        self._known = {vertex.name for vertex in analysis.dag.vertices}
        self._outputs: dict[str, list[list[Axis]]] = {}

    def outputs(self, name: str) -> list[list[Axis]]:
        """Return the axes of each tensor that a vertex gives."""
        if name not in self._outputs:
            self._outputs[name] = self.analysis.axes_of(name) if name in self._known else []
        return self._outputs[name]

    def operand(self, vertex: InnerVertex, index: int) -> list[Axis]:
        """Return the axes of an operand; of a tuple, none."""
        predecessor = vertex.predecessors[index]
        if is_constant(predecessor) and vertex.name in self._known:
            return self.constant(vertex, index)
        axes = self.outputs(predecessor.name)
        return axes[0] if len(axes) == 1 else []

    def constant(self, user: UserVertex, index: int) -> list[Axis]:
        """Return the axes that a constant has for one of its users."""
        return self.analysis.operand_axes(user.name, index)


def is_constant(vertex: Vertex) -> bool:
    """Tell whether a vertex holds a constant, which is cut for each of its users in another way."""
    return isinstance(vertex, InnerVertex) and isinstance(vertex.module, Constant)
