"""The records behind a graph: edges, names, and which module is registered where."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from torch_dag_core.errors import GraphError
from torch_dag_core.graph.registration import attribute_in_the_way, prefixes, register, registrations, unregister
from torch_dag_core.graph.vertex import InnerVertex, InputVertex, OutputVertex, UserVertex, Vertex

_NAME = re.compile(r"[^.\s]+(\.[^.\s]+)*")


class Bookkeeping(nn.Module):
    """What `Graph` edits through. These methods keep the records consistent but check nothing by themselves.

    `_link`, `_connect` and `_unlink` are the only places that touch edges.
    """

    def __init__(self) -> None:
        super().__init__()
        self._reset()

    def _reset(self) -> None:
        self._vertices: dict[str, Vertex] = {}
        self._folders: Counter[str] = Counter()
        self._journal: dict[Vertex, bool] | None = None
        self._owners: dict[nn.Module, dict[InnerVertex, None]] = {}
        self._output = OutputVertex(self, "output")  # type: ignore[arg-type]  # every instance is a Graph
        self._training_output: OutputVertex | None = None
        self._version = 0
        self._order: tuple[int, tuple[InnerVertex, ...]] | None = None

    # Checks ----------------------------------------------------------------------------------------------------

    def _check_members(self, vertices: Iterable[Any]) -> None:
        for vertex in vertices:
            if not isinstance(vertex, Vertex) or self._vertices.get(vertex.name) is not vertex:
                message = f"{vertex!r} is not a vertex of this graph"
                raise GraphError(message)

    def _check_user(self, vertex: UserVertex) -> None:
        if vertex is not self._output and vertex is not self._training_output:
            self._check_members([vertex])

    def _check_module(self, name: str, module: Any) -> None:
        if not isinstance(module, nn.Module) or module is self:
            message = f"vertex {name!r} needs an nn.Module other than the graph itself, got {module!r:.100}"
            raise GraphError(message)

    def _check_name(self, name: Any, *, leaving: Collection[Vertex] = ()) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            message = f"{name!r} is not a vertex name: dotted parts without spaces"
            raise GraphError(message)
        if not self._is_free(name, leaving=leaving):
            message = (
                f"the name {name!r} is taken by a vertex, lies inside one, or is an attribute of every graph; "
                "dag.unique_name finds a free one"
            )
            raise GraphError(message)

    def _is_free(self, name: str, *, leaving: Collection[Vertex] = ()) -> bool:
        """Tell whether a vertex may be called ``name`` once the vertices in ``leaving`` are gone."""
        inside = sum(vertex.name.startswith(f"{name}.") for vertex in leaving)
        if self._folders[name] > inside or self._vertices.get(name) not in (None, *leaving):
            return False
        around = (self._vertices.get(prefix) for prefix in prefixes(name))
        if any(isinstance(vertex, InnerVertex) and vertex not in leaving for vertex in around):
            return False
        return not attribute_in_the_way(self, name)

    def _is_folder(self, name: str) -> bool:
        """Tell whether names may lie inside ``name``."""
        return not isinstance(self._vertices.get(name), InnerVertex) and not attribute_in_the_way(self, name)

    # Edges and modules -----------------------------------------------------------------------------------------

    def _link(self, user: UserVertex, index: int, predecessor: Vertex) -> None:
        """Make operand ``index`` read ``predecessor``."""
        operands = user._predecessors
        del operands[index]._uses[user, index]
        user._predecessors = (*operands[:index], predecessor, *operands[index + 1 :])
        predecessor._uses[user, index] = None
        self._note(operands[index])
        self._note(predecessor)
        self._note(user, itself=True)

    def _connect(self, user: UserVertex, predecessors: Iterable[Vertex]) -> None:
        """Give operands to a user that has none."""
        user._predecessors = tuple(predecessors)
        for index, predecessor in enumerate(user._predecessors):
            predecessor._uses[user, index] = None
            self._note(predecessor)
        self._note(user, itself=True)

    def _unlink(self, user: UserVertex) -> None:
        for index, predecessor in enumerate(user._predecessors):
            del predecessor._uses[user, index]
            self._note(predecessor)
        user._predecessors = ()

    def _enter(self, vertex: Vertex) -> None:
        self._vertices[vertex.name] = vertex
        if isinstance(vertex, InnerVertex):
            self._folders.update(prefixes(vertex.name))

    def _attach(self, vertex: InnerVertex, predecessors: Iterable[Vertex]) -> None:
        self._enter(vertex)
        self._own(vertex, vertex.module)
        self._connect(vertex, predecessors)

    def _leave(self, vertex: Vertex) -> None:
        del self._vertices[vertex.name]
        if isinstance(vertex, InnerVertex):
            self._folders.subtract(prefixes(vertex.name))

    def _own(self, vertex: InnerVertex, module: nn.Module) -> None:
        owners = self._owners.setdefault(module, {})
        owners[vertex] = None
        if len(owners) == 1:
            register(self, vertex.name, module)
        self._note(vertex, itself=True)

    def _disown(self, vertex: InnerVertex) -> None:
        owners = self._owners[vertex.module]
        first = next(iter(owners))
        del owners[vertex]
        if first is vertex:
            unregister(self, vertex.name)
            heir = next(iter(owners), None)
            if heir is not None:
                register(self, heir.name, heir.module)
        if not owners:
            del self._owners[vertex.module]

    def _register_under(self, vertex: InnerVertex) -> None:
        """Register a shared module under the name of this one of its vertices."""
        owners = self._owners[vertex.module]
        first = next(iter(owners))
        if first is vertex:
            return
        unregister(self, first.name)
        self._owners[vertex.module] = {vertex: None, **owners}
        register(self, vertex.name, vertex.module)

    def _changed(self) -> None:
        self._version += 1

    # Watching edits --------------------------------------------------------------------------------------------

    @contextmanager
    def recording(self) -> Iterator[dict[Vertex, bool]]:
        """Record which vertices are edited inside the block: True for module or operands, False for uses alone."""
        outer, self._journal = self._journal, {}
        journal = self._journal
        try:
            yield journal
        finally:
            self._journal = outer
            for vertex, itself in journal.items():
                self._note(vertex, itself=itself)

    def _note(self, vertex: Vertex, *, itself: bool = False) -> None:
        if self._journal is not None:
            self._journal[vertex] = itself or self._journal.get(vertex, False)

    # Restoring a copied graph, whose modules are registered already -------------------------------------------

    def _adopt_input(self, name: str) -> InputVertex:
        vertex = InputVertex(self, name)  # type: ignore[arg-type]  # every instance is a Graph
        self._enter(vertex)
        return vertex

    def _adopt_inner(self, name: str, module: nn.Module) -> InnerVertex:
        vertex = InnerVertex(self, name, module)  # type: ignore[arg-type]  # every instance is a Graph
        self._enter(vertex)
        self._owners.setdefault(module, {})[vertex] = None
        return vertex

    def _adopt_registrations(self) -> None:
        """Put first, among the vertices that share a module, the one under whose name it is registered."""
        for name, module in registrations(self).items():
            vertex = self._vertices.get(name)
            if isinstance(vertex, InnerVertex) and len(self._owners.get(module, ())) > 1:
                self._owners[module] = {vertex: None, **self._owners[module]}
