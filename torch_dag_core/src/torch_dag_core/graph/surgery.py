"""Edits of a graph, each of which leaves it valid or unchanged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import nn

from torch_dag_core.errors import GraphError
from torch_dag_core.graph import flattening, nesting
from torch_dag_core.graph.graph import Graph
from torch_dag_core.graph.vertex import InnerVertex, UserVertex, Vertex

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule

Use = tuple[UserVertex, int]


class Surgery(Graph):
    """The editing methods of a `DagModule`."""

    @property
    def has_side_effect(self) -> bool:
        """Whether the graph writes state, so that it must run even where nothing reads its result. O(n)."""
        return any(vertex.has_side_effect for vertex in self.inner_vertices)

    # Inserting -------------------------------------------------------------------------------------------------

    def insert_before(
        self, vertex: UserVertex, module: nn.Module, *, index: int = 0, name: str | None = None
    ) -> InnerVertex:
        """Put ``module`` on the edge into operand ``index`` of ``vertex`` and return its vertex. O(operands).

        Raises:
            GraphError: there is no such operand, or the name is taken.
        """
        self._check_user(vertex)
        self._check_operand(vertex, index)
        return self._insert(vertex.predecessors[index], module, [(vertex, index)], name)

    def insert_after(self, vertex: Vertex, module: nn.Module, *, name: str | None = None) -> InnerVertex:
        """Make all uses of ``vertex``, outputs included, read ``module`` called on it. O(uses).

        Raises:
            GraphError: the vertex is not of this graph, or the name is taken.
        """
        self._check_members([vertex])
        return self._insert(vertex, module, vertex.uses, name)

    def insert_between(
        self, predecessor: Vertex, vertex: UserVertex, module: nn.Module, *, name: str | None = None
    ) -> InnerVertex:
        """Put one vertex with ``module`` on all edges from ``predecessor`` to ``vertex``. O(operands).

        Raises:
            GraphError: there is no such edge, or the name is taken.
        """
        self._check_members([predecessor])
        self._check_user(vertex)
        uses = [(vertex, index) for index, operand in enumerate(vertex.predecessors) if operand is predecessor]
        if not uses:
            message = f"{vertex!r} does not read {predecessor!r}; insert between a vertex and one of its predecessors"
            raise GraphError(message)
        return self._insert(predecessor, module, uses, name)

    def _insert(self, source: Vertex, module: nn.Module, uses: Iterable[Use], name: str | None) -> InnerVertex:
        chosen = tuple(uses)
        inserted = self.add_vertex(self._derived_name(source, module) if name is None else name, module, [source])
        for user, index in chosen:
            self._link(user, index, inserted)
        return inserted

    def _derived_name(self, source: Vertex, module: nn.Module) -> str:
        return self.unique_name(f"{source.name}_{type(module).__name__.lower()}")

    # Removing --------------------------------------------------------------------------------------------------

    def remove_vertex(self, vertex: InnerVertex) -> None:
        """Remove one vertex; what read it reads its only predecessor instead. O(uses + operands).

        Raises:
            GraphError: the vertex is used and has no or several operands.
        """
        self._check_inner([vertex])
        if vertex._uses and len(vertex.predecessors) != 1:
            message = (
                f"{vertex!r} is used and has {len(vertex.predecessors)} operands, so nothing says what its users "
                "should read; redirect them with replace_uses first"
            )
            raise GraphError(message)
        for user, index in vertex.uses:
            self._link(user, index, vertex.predecessors[0])
        self.remove_unused(vertex)

    def remove_dead_vertices(self) -> tuple[str, ...]:
        """Remove the vertices that neither an output nor a side effect needs, and return their names. O(n)."""
        order = self.inner_vertices
        needed = self._needed()
        dead = [vertex for vertex in order if vertex not in needed]
        for vertex in reversed(dead):
            self.remove_unused(vertex)
        return tuple(vertex.name for vertex in dead)

    def _needed(self) -> set[Vertex]:
        stack: list[Vertex] = [vertex for output in self.output_vertices for vertex in output.predecessors]
        stack += [vertex for vertex in self.inner_vertices if vertex.has_side_effect]
        needed = set(stack)
        while stack:
            fresh = {predecessor for predecessor in stack.pop().predecessors if predecessor not in needed}
            needed |= fresh
            stack.extend(fresh)
        return needed

    # Nesting ---------------------------------------------------------------------------------------------------

    def wrap_subgraph(self, vertices: Iterable[InnerVertex], *, name: str) -> InnerVertex:
        """Replace inner vertices by one vertex whose module is a nested `DagModule` of them. O(n).

        The nested graph takes what the vertices read from outside, in order of first use, and returns what is
        read outside: one value as it is, several as a tuple that `GetItem` vertices take apart. The names of the
        vertices lose the dotted prefix that they all share with ``name``, so that wrapping ``layer1.0.conv1`` and
        its siblings under the name ``layer1.0`` changes no key of the state dict.

        Raises:
            GraphError: a path leaves the vertices and comes back, which would make a cycle; the name is taken.
        """
        chosen = tuple(dict.fromkeys(vertices))
        self._check_inner(chosen)
        self._check_name(name, leaving=set(chosen))
        return nesting.wrap(self, chosen, name)

    def flatten(self) -> DagModule:
        """Return an independent copy without nested graphs; this graph stays as it is. O(size).

        The vertices of a nested graph ``outer`` are called ``outer.inner``. Modules shared between vertices stay
        shared, and the order of random draws is kept. What a nested graph checks of its own inputs is not
        checked any more. Two kinds of nested graphs stay: those that build a container which a vertex other than
        `GetItem` reads, and those that no flat vertices can stand for, because they take tensors inside containers,
        return another container in training, or are frozen in another mode.
        """
        return flattening.flatten(self)

    # Checks ----------------------------------------------------------------------------------------------------

    def _check_operand(self, vertex: UserVertex, index: int) -> None:
        if not 0 <= index < len(vertex.predecessors):
            message = f"{vertex!r} has {len(vertex.predecessors)} operands, there is no operand {index}"
            raise GraphError(message)

    def _check_inner(self, vertices: Iterable[Vertex]) -> None:
        for vertex in vertices:
            self._check_members([vertex])
            if not isinstance(vertex, InnerVertex):
                message = f"{vertex!r} is part of the call signature; only inner vertices can be removed or wrapped"
                raise GraphError(message)
