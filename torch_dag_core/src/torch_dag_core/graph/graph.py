"""The graph: vertices by name, use maps, modules registered under their vertices' names.

Every mutator validates, then mutates; on error the graph is unchanged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from torch_dag_core.errors import GraphError
from torch_dag_core.graph.bookkeeping import Bookkeeping
from torch_dag_core.graph.inputs import InputSpec
from torch_dag_core.graph.ordering import refuse_cycle, topological
from torch_dag_core.graph.registration import Scope, first_free, open_path
from torch_dag_core.graph.structure import slots
from torch_dag_core.graph.values import Slot
from torch_dag_core.graph.vertex import InnerVertex, InputVertex, OutputVertex, UserVertex, Vertex

__all__ = ["Graph", "Scope"]


class Graph(Bookkeeping):
    """Vertices and edges of a `DagModule`, without the ways to run, save or show it."""

    def __init__(self) -> None:
        super().__init__()
        self.input_spec = InputSpec()
        self.provenance: dict[str, Any] = {}

    # Reading ---------------------------------------------------------------------------------------------------

    @property
    def vertices(self) -> tuple[Vertex, ...]:
        """Inputs, then inner vertices in topological order."""
        return (*self.input_vertices, *self.inner_vertices)

    @property
    def input_vertices(self) -> tuple[InputVertex, ...]:
        """The inputs, in slot order."""
        return tuple(vertex for vertex in self._vertices.values() if isinstance(vertex, InputVertex))

    @property
    def inner_vertices(self) -> tuple[InnerVertex, ...]:
        """The inner vertices in topological order; ties keep the recorded order. O(n), cached per version."""
        if self._order is None or self._order[0] != self._version:
            self._order = (self._version, tuple(topological(self._vertices.values())))
        return self._order[1]

    @property
    def outputs(self) -> tuple[Vertex, ...]:
        """The vertices that the model returns, in the order of the output's slots."""
        return self._output.predecessors

    @property
    def output_structure(self) -> Any:
        """The template of the returned value; slot i is ``outputs[i]``."""
        return self._output.structure

    @property
    def output_vertices(self) -> tuple[OutputVertex, ...]:
        """The users that stand for returned values: one, or two where training returns something else."""
        return (self._output,) if self._training_output is None else (self._output, self._training_output)

    def output_vertex(self, *, training: bool) -> OutputVertex:
        """Return the output used in this mode."""
        return self._training_output if training and self._training_output is not None else self._output

    def get_vertex_by_name(self, name: str) -> Vertex:
        """Return one vertex. O(1).

        Raises:
            GraphError: no vertex has this name.
        """
        vertex = self._vertices.get(name)
        if vertex is None:
            message = f"the graph has no vertex named {name!r}; print(dag) lists them"
            raise GraphError(message)
        return vertex

    def __contains__(self, name: object) -> bool:
        return name in self._vertices

    def __len__(self) -> int:
        return len(self._vertices)

    def __bool__(self) -> bool:
        return True

    # Building --------------------------------------------------------------------------------------------------

    def add_input(self, name: str) -> InputVertex:
        """Append one input. O(1)."""
        self._check_name(name)
        vertex = InputVertex(self, name)
        self._enter(vertex)
        self._changed()
        return vertex

    def add_vertex(self, name: str, module: nn.Module, predecessors: Iterable[Vertex] = ()) -> InnerVertex:
        """Append one inner vertex that calls ``module`` on ``predecessors``. O(operands)."""
        predecessors = tuple(predecessors)
        self._check_name(name)
        self._check_members(predecessors)
        self._check_module(name, module)
        vertex = InnerVertex(self, name, module)
        self._attach(vertex, predecessors)
        self._changed()
        return vertex

    def set_outputs(self, structure: Any, vertices: Sequence[Vertex], *, training_only: bool = False) -> None:
        """Set what the model returns: a template whose slot i is ``vertices[i]``."""
        self._check_members(vertices)
        if sorted(set(slots(structure))) != list(range(len(vertices))):
            message = f"the output structure {structure!r} does not use the slots 0..{len(vertices) - 1}"
            raise GraphError(message)
        target = self._output
        if training_only:
            target = self._training_output = self._training_output or OutputVertex(self, "training output")
        self._unlink(target)
        target.structure = structure
        self._connect(target, vertices)
        self._changed()

    def set_output(self, vertex: Vertex) -> None:
        """Make the model return the value of one vertex."""
        self.set_outputs(Slot(0), (vertex,))

    # Editing ---------------------------------------------------------------------------------------------------

    def set_predecessor(self, vertex: UserVertex, index: int, predecessor: Vertex) -> None:
        """Make operand ``index`` of ``vertex`` read ``predecessor``. O(1) plus a walk that refuses cycles."""
        self._check_members([predecessor])
        self._check_user(vertex)
        if not 0 <= index < len(vertex.predecessors):
            message = f"{vertex!r} has {len(vertex.predecessors)} operands, there is no operand {index}"
            raise GraphError(message)
        refuse_cycle(predecessor, {vertex}, vertex.predecessors)
        self._link(vertex, index, predecessor)
        self._changed()

    def replace_uses(self, old: Vertex, new: Vertex, uses: Iterable[tuple[UserVertex, int]] | None = None) -> None:
        """Make the uses of ``old`` (all, or those given) read ``new``. O(uses) plus a walk that refuses cycles."""
        chosen = old.uses if uses is None else tuple(uses)
        self._check_members([old, new])
        for use in chosen:
            if use not in old._uses:
                message = f"{use!r} is not a use of {old!r}"
                raise GraphError(message)
        refuse_cycle(new, {user for user, _ in chosen}, [old])
        for user, index in chosen:
            self._link(user, index, new)
        self._changed()

    def replace_module(self, vertex: InnerVertex, module: nn.Module) -> None:
        """Make ``vertex`` call another module; edges and name stay. O(1)."""
        self._check_members([vertex])
        self._check_module(vertex.name, module)
        self._disown(vertex)
        self._own(vertex, module)
        vertex._module = module
        self._changed()

    def remove_unused(self, vertex: InnerVertex) -> None:
        """Remove one vertex that nothing reads. O(operands)."""
        self._check_members([vertex])
        if vertex._uses:
            users = ", ".join(sorted({user.name for user, _ in vertex._uses}))
            message = f"{vertex!r} is read by {users}; redirect them first, or use remove_vertex"
            raise GraphError(message)
        self._unlink(vertex)
        self._disown(vertex)
        self._leave(vertex)
        self._changed()

    def rename(self, vertex: Vertex, name: str) -> None:
        """Give a vertex another unique name; its module moves with it. O(n)."""
        self._check_members([vertex])
        self._check_name(name, leaving=[vertex])
        order = list(self._vertices.values())
        if isinstance(vertex, InnerVertex):
            self._disown(vertex)
        self._leave(vertex)
        vertex._name = name
        self._enter(vertex)
        if isinstance(vertex, InnerVertex):
            self._own(vertex, vertex.module)
        self._vertices = {v.name: v for v in order}
        self._changed()

    def unique_name(self, name: str) -> str:
        """Return ``name``, or ``name_1``, ``name_2``, ... if it is taken; nothing lies inside a vertex. O(log n).

        A name inside a vertex ``a`` becomes a sibling: ``a.b`` turns into ``a_b``.
        """
        return first_free(open_path(name, self._is_folder), self._is_free)

    # Checks ----------------------------------------------------------------------------------------------------

    def verify(self) -> None:
        """Recompute every invariant from scratch. O(n).

        Raises:
            GraphError: naming the first that does not hold.
        """
        from torch_dag_core.graph.verification import verify

        verify(self)
