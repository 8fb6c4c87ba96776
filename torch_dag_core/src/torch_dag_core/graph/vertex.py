"""The vertices of a graph, and the functions that write to them, which only the records of a graph call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule


class Vertex:
    """A named value of a graph.

    Attributes:
        meta: Scratch space for algorithms; never saved nor copied.
    """

    def __init__(self, graph: DagModule, name: str) -> None:
        self._graph = graph
        self._name = name
        self._uses: dict[tuple[UserVertex, int], None] = {}
        self.meta: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The unique name; ``dag.rename`` changes it."""
        return self._name

    @property
    def dag(self) -> DagModule:
        """The graph that owns the vertex."""
        return self._graph

    @property
    def uses(self) -> tuple[tuple[UserVertex, int], ...]:
        """A snapshot of (user, operand index) in the order in which the uses were added, outputs included."""
        return tuple(self._uses)

    @property
    def successors(self) -> tuple[InnerVertex, ...]:
        """The inner vertices that read this one, each once."""
        return tuple(dict.fromkeys(user for user, _ in self._uses if isinstance(user, InnerVertex)))

    @property
    def predecessors(self) -> tuple[Vertex, ...]:
        """The vertices that this one reads, in operand order."""
        return ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r})"


class InputVertex(Vertex):
    """One tensor that the caller passes in."""


class UserVertex(Vertex):
    """A vertex that reads others."""

    def __init__(self, graph: DagModule, name: str) -> None:
        super().__init__(graph, name)
        self._predecessors: tuple[Vertex, ...] = ()

    @property
    def predecessors(self) -> tuple[Vertex, ...]:
        """The vertices that this one reads, in operand order; change one with ``dag.set_predecessor``."""
        return self._predecessors


class InnerVertex(UserVertex):
    """One module called on its predecessors' values, positionally."""

    def __init__(self, graph: DagModule, name: str, module: nn.Module) -> None:
        super().__init__(graph, name)
        self._module = module

    @property
    def module(self) -> nn.Module:
        """What the vertex computes; change it with ``dag.replace_module``."""
        return self._module

    @property
    def has_side_effect(self) -> bool:
        """Whether the vertex must run even where nothing reads its value."""
        return bool(getattr(self._module, "has_side_effect", False))


class OutputVertex(UserVertex):
    """What the model returns.

    Attributes:
        structure: The template of the returned value; its slot i is predecessor i.
    """

    def __init__(self, graph: DagModule, name: str) -> None:
        super().__init__(graph, name)
        self.structure: Any = None


def link(user: UserVertex, index: int, predecessor: Vertex) -> Vertex:
    """Make operand ``index`` of ``user`` read ``predecessor``, and return what it read before. O(operands)."""
    operands = user._predecessors
    del operands[index]._uses[user, index]
    user._predecessors = (*operands[:index], predecessor, *operands[index + 1 :])
    predecessor._uses[user, index] = None
    return operands[index]


def connect(user: UserVertex, predecessors: Iterable[Vertex]) -> None:
    """Give operands to a user that has none. O(operands)."""
    user._predecessors = tuple(predecessors)
    for index, predecessor in enumerate(user._predecessors):
        predecessor._uses[user, index] = None


def unlink(user: UserVertex) -> None:
    """Take all operands from a user. O(operands)."""
    for index, predecessor in enumerate(user._predecessors):
        del predecessor._uses[user, index]
    user._predecessors = ()


def set_name(vertex: Vertex, name: str) -> None:
    """Give a vertex another name."""
    vertex._name = name


def set_module(vertex: InnerVertex, module: nn.Module) -> None:
    """Make a vertex call another module."""
    vertex._module = module
