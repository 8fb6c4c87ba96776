"""What a picture draws as one box: a vertex, or a module with everything in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch_dag_core.errors import InputError
from torch_dag_show.scene import INPUT, LEARNED, OUTPUT, PLAIN, Node, Scene


@dataclass(frozen=True)
class Box:
    """One box of a picture.

    Attributes:
        name: Of the vertex or of the folded module.
        path: The modules that it lies in and that are drawn open, outermost first, each as one part of its name.
        nodes: The vertices that it stands for.
        shape: Sizes of what it returns; empty if a folded module returns values of several sizes.
        shape_before: The same in the graph to compare with, where it differs; else empty.
    """

    name: str
    path: tuple[str, ...]
    nodes: tuple[Node, ...]
    shape: str
    shape_before: str

    @property
    def label(self) -> str:
        """The name without the modules that are drawn open around the box; its last part if it names others."""
        parts = self.name.split(".")
        depth = len(self.path)
        return ".".join(parts[depth:]) if tuple(parts[:depth]) == self.path else parts[-1]

    @property
    def folded(self) -> bool:
        """Whether the box is a module."""
        return len(self.nodes) > 1

    @property
    def kind(self) -> str:
        """The kind of the vertex; a module is `LEARNED` if it has parameters."""
        kinds = {node.kind for node in self.nodes}
        return kinds.pop() if len(kinds) == 1 else LEARNED if LEARNED in kinds else PLAIN

    @property
    def changed(self) -> bool:
        """Whether a size of any vertex differs from that in the graph to compare with."""
        return any(node.shape_before for node in self.nodes)

    @property
    def parameters(self) -> int:
        """Elements of all its parameters."""
        return sum(node.parameters for node in self.nodes)

    @property
    def flops(self) -> int:
        """Floating-point operations of all its vertices for one sample."""
        return sum(node.flops for node in self.nodes)


@dataclass(frozen=True)
class Folded:
    """A graph as boxes, in the order of its vertices, and edges between them as pairs of their positions."""

    boxes: tuple[Box, ...]
    edges: tuple[tuple[int, int], ...]


def checked_depth(depth: int | None) -> int | None:
    """Return a depth at which modules are folded.

    Raises:
        InputError: it is neither None nor an int of at least 1.
    """
    if depth is not None and (type(depth) is not int or depth < 1):
        message = f"depth must be None or an int of at least 1, not {depth!r}; 1 draws each outermost module as one box"
        raise InputError(message)
    return depth


def folded(scene: Scene, depth: int | None = None) -> Folded:
    """Fold the modules of a graph. Linear in its size.

    Args:
        scene: The graph.
        depth: How many parts the names of folded modules have: 1 folds the outermost ones, such as ``layer1``, and 2
            those inside, such as ``layer1.0``. Inputs, outputs and the only vertex of a module stay as they are. None
            folds nothing.

    Raises:
        InputError: the depth is no int of at least 1.
    """
    checked_depth(depth)
    members: dict[tuple[bool, str], list[int]] = {}
    keys = [_key(node, depth) for node in scene.nodes]
    for index, key in enumerate(keys):
        members.setdefault(key, []).append(index)
    position = {key: place for place, key in enumerate(members)}
    leaving = {source for source, target in scene.edges if keys[source] != keys[target]}
    boxes = tuple(
        _box(name, [(scene.nodes[index], index in leaving) for index in found], depth)
        for (_, name), found in members.items()
    )
    pairs = ((position[keys[source]], position[keys[target]]) for source, target in scene.edges)
    return Folded(boxes, tuple(dict.fromkeys(pair for pair in pairs if pair[0] != pair[1])))


def _key(node: Node, depth: int | None) -> tuple[bool, str]:
    """Return what a vertex is drawn in: a folded module (True and its name), or its own box."""
    if depth is None or len(node.path) < depth or node.kind in {INPUT, OUTPUT}:
        return False, node.name
    return True, ".".join(node.path[:depth])


def _box(name: str, members: Sequence[tuple[Node, bool]], depth: int | None) -> Box:
    nodes = tuple(node for node, _ in members)
    returned = nodes if len(nodes) == 1 else [node for node, leaves in members if leaves]
    shapes = {(node.shape, node.shape_before) for node in returned}
    shape, before = shapes.pop() if len(shapes) == 1 else ("", "")
    whole, path = (nodes[0].name, nodes[0].path) if len(nodes) == 1 else (name, tuple(name.split(".")[:-1]))
    return Box(whole, path if depth is None else path[: depth - 1], nodes, shape, before)
