"""Dominator trees, built in one pass over a graph, that find common dominators in O(log depth) steps.

A vertex dominates another if every path from the inputs to the other goes through it. Each node of the tree has a jump
pointer to an ancestor further up, as in a skip list. To build a tree, visit vertices in topological order and add each
as ``child(common(nodes of its predecessors), vertex)``. The same in reverse order, from the outputs to the inputs,
gives post-dominators.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Any

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.vertex import Vertex


@dataclass(frozen=True, eq=False)
class TreeNode:
    """A node of a dominator tree, with the item that it stands for; ``jump`` is an ancestor further up."""

    item: Any
    depth: int
    parent: TreeNode | None
    jump: TreeNode | None


ROOT = TreeNode(None, 0, None, None)


def child(parent: TreeNode, item: Any) -> TreeNode:
    """Return a new node for an item whose immediate dominator is ``parent``. O(1)."""
    jump = parent
    far = parent.jump
    if far is not None and far.jump is not None and parent.depth - far.depth == far.depth - far.jump.depth:
        jump = far.jump
    return TreeNode(item, parent.depth + 1, parent, jump)


def ancestor(node: TreeNode, depth: int) -> TreeNode:
    """Return the ancestor at the given depth; the node itself if it is not deeper. O(log depth)."""
    while node.depth > depth:
        assert node.parent is not None
        node = node.jump if node.jump is not None and node.jump.depth >= depth else node.parent
    return node


def dominates(first: TreeNode, second: TreeNode) -> bool:
    """Tell whether ``first`` dominates ``second``; every node dominates itself. O(log depth)."""
    return ancestor(second, first.depth) is first


def common(nodes: Iterable[TreeNode]) -> TreeNode:
    """Return the deepest node that dominates all of the given ones, at least one. O(log depth) each."""
    return reduce(_common_of_two, nodes)


def _common_of_two(first: TreeNode, second: TreeNode) -> TreeNode:
    depth = min(first.depth, second.depth)
    first, second = ancestor(first, depth), ancestor(second, depth)
    while first is not second:
        assert first.parent is not None
        assert second.parent is not None
        jumps = first.jump is not None and second.jump is not None and first.jump is not second.jump
        first, second = (first.jump, second.jump) if jumps else (first.parent, second.parent)  # type: ignore[assignment]
    return first


def dominators(dag: DagModule) -> dict[Vertex, TreeNode]:
    """Return the node in the dominator tree of every vertex that depends on an input. O(n log n)."""
    nodes: dict[Vertex, TreeNode] = {vertex: child(ROOT, vertex) for vertex in dag.input_vertices}
    for vertex in dag.inner_vertices:
        known = [nodes[predecessor] for predecessor in dict.fromkeys(vertex.predecessors) if predecessor in nodes]
        if known:
            nodes[vertex] = child(common(known), vertex)
    return nodes
