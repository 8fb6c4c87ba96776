"""The records behind a graph: vertices by name, edges, outputs, and which module is registered where."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import nn

from torch_dag_core.errors import GraphError
from torch_dag_core.graph.registration import Registrations, attribute_in_the_way, first_free, open_path, prefixes
from torch_dag_core.graph.vertex import (
    InnerVertex,
    InputVertex,
    OutputVertex,
    UserVertex,
    Vertex,
    connect,
    link,
    set_module,
    set_name,
    unlink,
)

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule

_NAME = re.compile(r"[^.\s]+(\.[^.\s]+)*")

FlatVertices: TypeAlias = list[tuple[str, nn.Module | None, list[int]]]
"""Name, module (None for inputs) and the positions of the operands of every vertex."""
FlatOutputs: TypeAlias = list[tuple[Any, list[int]]]
"""Template and the positions of the operands of every output."""


class Records:
    """What a `DagModule` edits through.

    The checks raise `GraphError` and change nothing; the edits keep the records consistent and check nothing.

    Attributes:
        vertices: All vertices but the outputs, by name, in the order in which they were recorded.
        registrations: The modules and the vertices that call them.
        output: What the graph returns, in training too unless there is a training output.
        training_output: What it returns in training, if that is something else.
    """

    def __init__(self, dag: DagModule) -> None:
        self.vertices: dict[str, Vertex] = {}
        self.registrations = Registrations(dag)
        self.output = OutputVertex(dag, "output")
        self.training_output: OutputVertex | None = None
        self._dag = dag
        self._folders: Counter[str] = Counter()
        self._journal: dict[Vertex, bool] | None = None

    @property
    def outputs(self) -> tuple[OutputVertex, ...]:
        """The output, and the training output where there is one."""
        return (self.output,) if self.training_output is None else (self.output, self.training_output)

    # Checks ----------------------------------------------------------------------------------------------------

    def check_members(self, vertices: Iterable[Any]) -> None:
        """Refuse what is not a vertex of this graph."""
        for vertex in vertices:
            if not isinstance(vertex, Vertex) or self.vertices.get(vertex.name) is not vertex:
                message = f"{vertex!r} is not a vertex of this graph"
                raise GraphError(message)

    def check_inner(self, vertices: Iterable[Vertex]) -> None:
        """Refuse what is not an inner vertex of this graph."""
        for vertex in vertices:
            self.check_members([vertex])
            if not isinstance(vertex, InnerVertex):
                message = f"{vertex!r} is part of the call signature; only inner vertices can be removed or wrapped"
                raise GraphError(message)

    def check_user(self, vertex: UserVertex) -> None:
        """Refuse what is neither a vertex nor an output of this graph."""
        if all(vertex is not output for output in self.outputs):
            self.check_members([vertex])

    def check_operand(self, vertex: UserVertex, index: int) -> None:
        """Refuse an index for which the vertex has no operand."""
        if not 0 <= index < len(vertex.predecessors):
            message = f"{vertex!r} has {len(vertex.predecessors)} operands, there is no operand {index}"
            raise GraphError(message)

    def check_module(self, name: str, module: Any) -> None:
        """Refuse what a vertex cannot call."""
        if not isinstance(module, nn.Module) or module is self._dag:
            message = f"vertex {name!r} needs an nn.Module other than the graph itself, got {module!r:.100}"
            raise GraphError(message)

    def check_name(self, name: Any, *, leaving: Collection[Vertex] = ()) -> None:
        """Refuse a name that no vertex may have once the vertices in ``leaving`` are gone."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            message = f"{name!r} is not a vertex name: dotted parts without spaces"
            raise GraphError(message)
        if not self._is_free(name, leaving=leaving):
            message = (
                f"the name {name!r} is taken by a vertex, lies inside one, or is an attribute of every graph; "
                "dag.unique_name finds a free one"
            )
            raise GraphError(message)

    def unique_name(self, name: str) -> str:
        """Return a free name that resembles ``name``; see `DagModule.unique_name`."""
        return first_free(open_path(name, self._is_folder), self._is_free)

    def _is_free(self, name: str, *, leaving: Collection[Vertex] = ()) -> bool:
        """Tell whether a vertex may be called ``name`` once the vertices in ``leaving`` are gone."""
        inside = sum(vertex.name.startswith(f"{name}.") for vertex in leaving)
        if self._folders[name] > inside or self.vertices.get(name) not in (None, *leaving):
            return False
        around = (self.vertices.get(prefix) for prefix in prefixes(name))
        if any(isinstance(vertex, InnerVertex) and vertex not in leaving for vertex in around):
            return False
        return not attribute_in_the_way(self._dag, name)

    def _is_folder(self, name: str) -> bool:
        """Tell whether names may lie inside ``name``."""
        return not isinstance(self.vertices.get(name), InnerVertex) and not attribute_in_the_way(self._dag, name)

    # Edges -----------------------------------------------------------------------------------------------------

    def link(self, user: UserVertex, index: int, predecessor: Vertex) -> None:
        """Make operand ``index`` read ``predecessor``."""
        self._note(link(user, index, predecessor))
        self._note(predecessor)
        self._note(user, itself=True)

    def set_output(self, structure: Any, vertices: Sequence[Vertex], *, training_only: bool) -> None:
        """Replace the template and the operands of an output."""
        target = self.output
        if training_only:
            target = self.training_output = self.training_output or OutputVertex(self._dag, "training output")
        self._unlink(target)
        target.structure = structure
        self._connect(target, vertices)

    def _connect(self, user: UserVertex, predecessors: Iterable[Vertex]) -> None:
        """Give operands to a user that has none."""
        connect(user, predecessors)
        for predecessor in user.predecessors:
            self._note(predecessor)
        self._note(user, itself=True)

    def _unlink(self, user: UserVertex) -> None:
        for predecessor in user.predecessors:
            self._note(predecessor)
        unlink(user)

    # Vertices and modules --------------------------------------------------------------------------------------

    def add_input(self, name: str) -> InputVertex:
        """Append an input."""
        vertex = InputVertex(self._dag, name)
        self._enter(vertex)
        return vertex

    def add_inner(self, name: str, module: nn.Module, predecessors: Iterable[Vertex]) -> InnerVertex:
        """Append a vertex that calls ``module`` on its predecessors."""
        vertex = InnerVertex(self._dag, name, module)
        self.attach(vertex, predecessors)
        return vertex

    def attach(self, vertex: InnerVertex, predecessors: Iterable[Vertex]) -> None:
        """Append a vertex that was made for this graph."""
        self._enter(vertex)
        self.registrations.add(vertex)
        self._connect(vertex, predecessors)

    def remove(self, vertex: InnerVertex) -> None:
        """Remove a vertex that nothing reads."""
        self._unlink(vertex)
        self.registrations.remove(vertex)
        self._leave(vertex)

    def replace_module(self, vertex: InnerVertex, module: nn.Module) -> None:
        """Make a vertex call another module."""
        self.registrations.remove(vertex)
        set_module(vertex, module)
        self.registrations.add(vertex)
        self._note(vertex, itself=True)

    def rename(self, vertex: Vertex, name: str) -> None:
        """Give a vertex another name; its place in the recorded order stays. O(n)."""
        order = list(self.vertices.values())
        if isinstance(vertex, InnerVertex):
            self.registrations.remove(vertex)
        self._leave(vertex)
        set_name(vertex, name)
        self._enter(vertex)
        if isinstance(vertex, InnerVertex):
            self.registrations.add(vertex)
            self._note(vertex, itself=True)
        self.reorder(order)

    def reorder(self, vertices: Iterable[Vertex]) -> None:
        """Record the same vertices in another order."""
        self.vertices = {vertex.name: vertex for vertex in vertices}

    def _enter(self, vertex: Vertex) -> None:
        self.vertices[vertex.name] = vertex
        if isinstance(vertex, InnerVertex):
            self._folders.update(prefixes(vertex.name))

    def _leave(self, vertex: Vertex) -> None:
        del self.vertices[vertex.name]
        if isinstance(vertex, InnerVertex):
            self._folders.subtract(prefixes(vertex.name))

    # Watching edits --------------------------------------------------------------------------------------------

    @contextmanager
    def recording(self) -> Iterator[dict[Vertex, bool]]:
        """Record which vertices are edited inside the block; see `DagModule.recording`."""
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

    # Copying ---------------------------------------------------------------------------------------------------

    def flat(self) -> tuple[FlatVertices, FlatOutputs]:
        """Return all vertices in a form that refers to operands by position, so that copies do not recurse. O(n)."""
        position = {vertex: i for i, vertex in enumerate(self.vertices.values())}
        modules = [vertex.module if isinstance(vertex, InnerVertex) else None for vertex in self.vertices.values()]
        operands = [[position[each] for each in vertex.predecessors] for vertex in self.vertices.values()]
        outputs = [(each.structure, [position[operand] for operand in each.predecessors]) for each in self.outputs]
        return list(zip(self.vertices, modules, operands, strict=True)), outputs

    def restore(self, flat: FlatVertices) -> list[Vertex]:
        """Rebuild the vertices of an empty graph whose modules are registered already, and return them. O(n)."""
        built = [self._restored(name, module) for name, module, _ in flat]
        inner = [vertex for vertex in built if isinstance(vertex, InnerVertex)]
        self.registrations.adopt_names(inner)
        for vertex, (_, _, operands) in zip(built, flat, strict=True):
            if isinstance(vertex, InnerVertex):
                self._connect(vertex, [built[position] for position in operands])
        return built

    def _restored(self, name: str, module: nn.Module | None) -> Vertex:
        if module is None:
            return self.add_input(name)
        vertex = InnerVertex(self._dag, name, module)
        self._enter(vertex)
        self.registrations.adopt(vertex)
        return vertex
