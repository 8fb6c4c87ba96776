"""The search for operands of sums and products that can be removed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from torch_dag_block_pruning.config import BlockPruningConfig
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.vertex import InnerVertex, Vertex
from torch_dag_core.ops.arithmetic import Add, Mul
from torch_dag_core.patterns.dominance import ROOT, TreeNode, dominates, dominators

_KINDS: Mapping[type[nn.Module], str] = {Add: "residual", Mul: "gate"}
"""The kind of unit that an operand of each class of join is."""


@dataclass(frozen=True)
class LegalCut:
    """One operand of a join that can be removed."""

    join: InnerVertex
    operand: int
    kind: str


class CutSearch:
    """Checks every operand of every join. O(n log n) unless module classes are protected.

    A cut is allowed if all of these hold:

    - The join has two tensor operands, and the remaining one has the shape and dtype of the result at every batch
      size, so it can replace the join.
    - The remaining operand depends on an input of the model, so no set of cuts makes the output a constant.
    - The removed operand depends on an input too, and does not dominate the remaining one. Operands that depend on no
      input, such as position embeddings, cost too little to be candidates.
    - A gate is smaller than the value that it scales, as in squeeze-and-excitation.
    - No module of a protected class lies between the join and its fork, the last vertex on all paths to the join.
    """

    def __init__(self, dag: DagModule, facts: Mapping[str, Hashable], config: BlockPruningConfig) -> None:
        self._dag = dag
        self._facts = facts
        self._config = config
        self._protected = frozenset(config.ignore_classes)
        self._places = dominators(dag)

    def run(self) -> Iterator[LegalCut]:
        """Yield the allowed cuts in topological order of their joins."""
        for join in self._dag.inner_vertices:
            kind = _KINDS.get(type(join.module))
            if kind in self._config.units and len(join.predecessors) == 2 and join.name in self._facts:
                for operand in (0, 1):
                    if self._is_legal(join, operand, kind):
                        yield LegalCut(join, operand, kind)

    def _is_legal(self, join: InnerVertex, operand: int, kind: str) -> bool:
        goes, stays = join.predecessors[operand], join.predecessors[1 - operand]
        return (
            self._facts[stays.name] == self._facts[join.name]
            and goes in self._places
            and stays in self._places
            and not dominates(self._places[goes], self._places[stays])
            and _RULES[kind](self, goes, join)
            and self._fits_shortcut(stays, join)
            and not self._meets_protected(goes, join)
        )

    def _is_gate(self, goes: Vertex, join: InnerVertex) -> bool:
        return self._facts[goes.name] != self._facts[join.name]

    def _is_branch(self, goes: Vertex, join: InnerVertex) -> bool:
        del goes, join
        return True

    def _fork(self, join: InnerVertex) -> TreeNode:
        parent = self._places[join].parent
        return ROOT if parent is None else parent

    def _fits_shortcut(self, stays: Vertex, join: InnerVertex) -> bool:
        return self._config.shortcut == "any" or self._fork(join) is self._places[stays]

    def _meets_protected(self, goes: Vertex, join: InnerVertex) -> bool:
        if not self._protected:
            return False
        seen: set[Vertex] = {self._fork(join).item}
        stack = [goes]
        while stack:
            vertex = stack.pop()
            if vertex in seen:
                continue
            if isinstance(vertex, InnerVertex) and type(vertex.module) in self._protected:
                return True
            seen.add(vertex)
            stack.extend(vertex.predecessors)
        return False


_RULES: Mapping[str, Callable[[CutSearch, Vertex, InnerVertex], bool]] = {
    "residual": CutSearch._is_branch,
    "gate": CutSearch._is_gate,
}
