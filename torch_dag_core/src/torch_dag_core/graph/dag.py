"""The `DagModule`: a graph that can be edited and that runs as an `nn.Module`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import nn

from torch_dag_core.errors import GraphError
from torch_dag_core.graph import checkpoint_keys, flattening, nesting
from torch_dag_core.graph.inputs import InputSpec
from torch_dag_core.graph.ordering import refuse_cycle, topological
from torch_dag_core.graph.outputs import output_template
from torch_dag_core.graph.program import Forward, compile_forward
from torch_dag_core.graph.records import Records
from torch_dag_core.graph.structure import slots
from torch_dag_core.graph.text import summarize, to_text
from torch_dag_core.graph.values import Slot
from torch_dag_core.graph.verification import verify
from torch_dag_core.graph.vertex import InnerVertex, InputVertex, OutputVertex, UserVertex, Vertex

if TYPE_CHECKING:
    from torch_dag_core.plugins.registry import Registry

Use: TypeAlias = tuple[UserVertex, int]


class DagModule(nn.Module):
    """A model as one directed acyclic graph of modules.

    Called as the model it was made from: ``forward`` has the source model's parameters, so that
    ``torch.export.export(dag, (x,), dynamic_shapes={"x": {0: batch}})`` names them as it would for the model.
    ``state_dict()`` has the source model's own keys wherever a module was kept as it was.

    Every method that edits the graph validates first: if it raises, the graph is unchanged.
    """

    def __init__(self) -> None:
        super().__init__()
        self.input_spec = InputSpec()
        self.provenance: dict[str, Any] = {}
        self._clear()
        self.register_state_dict_post_hook(checkpoint_keys.to_source)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(checkpoint_keys.from_source)  # type: ignore[no-untyped-call]

    def _clear(self) -> None:
        """Start without vertices and without generated code."""
        self._records = Records(self)
        self._version = 0
        self._order: tuple[int, tuple[InnerVertex, ...]] | None = None
        self._programs: dict[bool, Callable[..., Any]] = {}
        self._calls: tuple[nn.Module, ...] = ()
        self._prepared_version = -1

    def _changed(self) -> None:
        self._version += 1

    # Reading ---------------------------------------------------------------------------------------------------

    @property
    def vertices(self) -> tuple[Vertex, ...]:
        """Inputs, then inner vertices in topological order."""
        return (*self.input_vertices, *self.inner_vertices)

    @property
    def input_vertices(self) -> tuple[InputVertex, ...]:
        """The inputs, in slot order."""
        return tuple(vertex for vertex in self._records.vertices.values() if isinstance(vertex, InputVertex))

    @property
    def inner_vertices(self) -> tuple[InnerVertex, ...]:
        """The inner vertices in topological order; ties keep the recorded order. O(n), cached per version."""
        if self._order is None or self._order[0] != self._version:
            self._order = (self._version, tuple(topological(self._records.vertices.values())))
        return self._order[1]

    @property
    def outputs(self) -> tuple[Vertex, ...]:
        """The vertices that the model returns, in the order of the output's slots."""
        return self._records.output.predecessors

    @property
    def output_structure(self) -> Any:
        """The template of the returned value; slot i is ``outputs[i]``."""
        return self._records.output.structure

    @property
    def output_vertices(self) -> tuple[OutputVertex, ...]:
        """The users that stand for returned values: one, or two where training returns something else."""
        return self._records.outputs

    def output_vertex(self, *, training: bool) -> OutputVertex:
        """Return the output used in this mode."""
        return self._records.outputs[-1 if training else 0]

    def get_vertex_by_name(self, name: str) -> Vertex:
        """Return one vertex. O(1).

        Raises:
            GraphError: no vertex has this name.
        """
        vertex = self._records.vertices.get(name)
        if vertex is None:
            message = f"the graph has no vertex named {name!r}; print(dag) lists them"
            raise GraphError(message)
        return vertex

    def __contains__(self, name: object) -> bool:
        return name in self._records.vertices

    def __len__(self) -> int:
        return len(self._records.vertices)

    def __bool__(self) -> bool:
        return True

    @property
    def has_side_effect(self) -> bool:
        """Whether the graph writes state, so that it must run even where nothing reads its result. O(n)."""
        return any(vertex.has_side_effect for vertex in self.inner_vertices)

    # Walking ---------------------------------------------------------------------------------------------------

    def traverse(self, *, nested: bool = True) -> Iterator[Vertex]:
        """Iterate over the vertices in topological order, entering nested graphs after their vertex."""
        stack: list[Iterator[Vertex]] = [iter(self.vertices)]
        while stack:
            vertex = next(stack[-1], None)
            if vertex is None:
                stack.pop()
                continue
            yield vertex
            if nested and isinstance(vertex, InnerVertex) and isinstance(vertex.module, DagModule):
                stack.append(iter(vertex.module.vertices))

    # Building --------------------------------------------------------------------------------------------------

    def add_input(self, name: str) -> InputVertex:
        """Append one input. O(1)."""
        self._records.check_name(name)
        vertex = self._records.add_input(name)
        self._changed()
        return vertex

    def add_vertex(self, name: str, module: nn.Module, predecessors: Iterable[Vertex] = ()) -> InnerVertex:
        """Append one inner vertex that calls ``module`` on ``predecessors``. O(operands)."""
        predecessors = tuple(predecessors)
        self._records.check_name(name)
        self._records.check_members(predecessors)
        self._records.check_module(name, module)
        vertex = self._records.add_inner(name, module, predecessors)
        self._changed()
        return vertex

    def set_outputs(
        self, structure: Any, vertices: Sequence[Vertex] | None = None, *, training_only: bool = False
    ) -> None:
        """Set what the model returns: ``dag.set_outputs({"logits": head, "features": (stage1, stage2)})``.

        Args:
            structure: Vertices in tuples, lists, dicts, dataclasses and constants, in whose places their values are
                returned; a single vertex; or, with ``vertices``, a template whose slot i stands for ``vertices[i]``.
            vertices: The vertices of a template.
            training_only: Set what is returned in training mode alone.

        Raises:
            GraphError: a vertex is not of this graph, or the structure holds something that a model cannot return.
        """
        if vertices is None:
            structure, vertices = output_template(structure)
        self._records.check_members(vertices)
        if sorted(set(slots(structure))) != list(range(len(vertices))):
            message = f"the output structure {structure!r} does not use the slots 0..{len(vertices) - 1}"
            raise GraphError(message)
        self._records.set_output(structure, vertices, training_only=training_only)
        self._changed()

    def set_output(self, vertex: Vertex) -> None:
        """Make the model return the value of one vertex."""
        self.set_outputs(Slot(0), (vertex,))

    # Editing ---------------------------------------------------------------------------------------------------

    def set_predecessor(self, vertex: UserVertex, index: int, predecessor: Vertex) -> None:
        """Make operand ``index`` of ``vertex`` read ``predecessor``. O(1) plus a walk that refuses cycles."""
        self._records.check_members([predecessor])
        self._records.check_user(vertex)
        self._records.check_operand(vertex, index)
        refuse_cycle(predecessor, {vertex}, vertex.predecessors)
        self._records.link(vertex, index, predecessor)
        self._changed()

    def replace_uses(self, old: Vertex, new: Vertex, uses: Iterable[tuple[UserVertex, int]] | None = None) -> None:
        """Make the uses of ``old`` (all, or those given) read ``new``. O(uses) plus a walk that refuses cycles."""
        chosen = old.uses if uses is None else tuple(uses)
        self._records.check_members([old, new])
        for use in chosen:
            if use not in old._uses:
                message = f"{use!r} is not a use of {old!r}"
                raise GraphError(message)
        refuse_cycle(new, {user for user, _ in chosen}, [old])
        for user, index in chosen:
            self._records.link(user, index, new)
        self._changed()

    def replace_module(self, vertex: InnerVertex, module: nn.Module) -> None:
        """Make ``vertex`` call another module; edges and name stay. O(1)."""
        self._records.check_members([vertex])
        self._records.check_module(vertex.name, module)
        self._records.replace_module(vertex, module)
        self._changed()

    def remove_unused(self, vertex: InnerVertex) -> None:
        """Remove one vertex that nothing reads. O(operands)."""
        self._records.check_members([vertex])
        if vertex._uses:
            users = ", ".join(sorted({user.name for user, _ in vertex._uses}))
            message = f"{vertex!r} is read by {users}; redirect them first, or use remove_vertex"
            raise GraphError(message)
        self._records.remove(vertex)
        self._changed()

    def rename(self, vertex: Vertex, name: str) -> None:
        """Give a vertex another unique name; its module moves with it. O(n)."""
        self._records.check_members([vertex])
        self._records.check_name(name, leaving=[vertex])
        self._records.rename(vertex, name)
        self._changed()

    def unique_name(self, name: str) -> str:
        """Return ``name``, or ``name_1``, ``name_2``, ... if it is taken; nothing lies inside a vertex. O(log n).

        A name inside a vertex ``a`` becomes a sibling: ``a.b`` turns into ``a_b``.
        """
        return self._records.unique_name(name)

    # Inserting -------------------------------------------------------------------------------------------------

    def insert_before(
        self, vertex: UserVertex, module: nn.Module, *, index: int = 0, name: str | None = None
    ) -> InnerVertex:
        """Put ``module`` on the edge into operand ``index`` of ``vertex`` and return its vertex. O(operands).

        Raises:
            GraphError: there is no such operand, or the name is taken.
        """
        self._records.check_user(vertex)
        self._records.check_operand(vertex, index)
        return self._insert(vertex.predecessors[index], module, [(vertex, index)], name)

    def insert_after(self, vertex: Vertex, module: nn.Module, *, name: str | None = None) -> InnerVertex:
        """Make all uses of ``vertex``, outputs included, read ``module`` called on it. O(uses).

        Raises:
            GraphError: the vertex is not of this graph, or the name is taken.
        """
        self._records.check_members([vertex])
        return self._insert(vertex, module, vertex.uses, name)

    def insert_between(
        self, predecessor: Vertex, vertex: UserVertex, module: nn.Module, *, name: str | None = None
    ) -> InnerVertex:
        """Put one vertex with ``module`` on all edges from ``predecessor`` to ``vertex``. O(operands).

        Raises:
            GraphError: there is no such edge, or the name is taken.
        """
        self._records.check_members([predecessor])
        self._records.check_user(vertex)
        uses = [(vertex, index) for index, operand in enumerate(vertex.predecessors) if operand is predecessor]
        if not uses:
            message = f"{vertex!r} does not read {predecessor!r}; insert between a vertex and one of its predecessors"
            raise GraphError(message)
        return self._insert(predecessor, module, uses, name)

    def _insert(self, source: Vertex, module: nn.Module, uses: Iterable[Use], name: str | None) -> InnerVertex:
        chosen = tuple(uses)
        inserted = self.add_vertex(self._derived_name(source, module) if name is None else name, module, [source])
        for user, index in chosen:
            self._records.link(user, index, inserted)
        return inserted

    def _derived_name(self, source: Vertex, module: nn.Module) -> str:
        return self.unique_name(f"{source.name}_{type(module).__name__.lower()}")

    # Removing --------------------------------------------------------------------------------------------------

    def remove_vertex(self, vertex: InnerVertex) -> None:
        """Remove one vertex; what read it reads its only predecessor instead. O(uses + operands).

        Raises:
            GraphError: the vertex is used and has no or several operands.
        """
        self._records.check_inner([vertex])
        if vertex._uses and len(vertex.predecessors) != 1:
            message = (
                f"{vertex!r} is used and has {len(vertex.predecessors)} operands, so nothing says what its users "
                "should read; redirect them with replace_uses first"
            )
            raise GraphError(message)
        for user, index in vertex.uses:
            self._records.link(user, index, vertex.predecessors[0])
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
        self._records.check_inner(chosen)
        self._records.check_name(name, leaving=set(chosen))
        nested = DagModule()
        nested.training = self.training
        wrapped = nesting.wrap(self, chosen, name, nested)
        self._changed()
        return wrapped

    def flatten(self) -> DagModule:
        """Return an independent copy without nested graphs; this graph stays as it is. O(size).

        The vertices of a nested graph ``outer`` are called ``outer.inner``. Modules shared between vertices stay
        shared, and the order of random draws is kept. What a nested graph checks of its own inputs is not
        checked any more. Two kinds of nested graphs stay: those that build a container which a vertex other than
        `GetItem` reads, and those that no flat vertices can stand for, because they take tensors inside containers,
        return another container in training, or are frozen in another mode.
        """
        return flattening.flatten(self, DagModule)

    # Watching edits --------------------------------------------------------------------------------------------

    def recording(self) -> AbstractContextManager[dict[Vertex, bool]]:
        """Record which vertices are edited inside the block: True for module or operands, False for uses alone."""
        return self._records.recording()

    def verify(self) -> None:
        """Recompute every invariant from scratch. O(n).

        Raises:
            GraphError: naming the first that does not hold.
        """
        verify(self)

    # Running ---------------------------------------------------------------------------------------------------

    forward = Forward()

    def _program(self) -> Callable[..., Any]:
        """Return the generated function that the graph runs in its present mode, bound to the graph."""
        self._prepare(self._version)
        return self._programs[self.training]

    def _prepare(self, version: int) -> None:
        """Generate the code of `forward` anew after an edit. O(n), else O(1)."""
        if self._prepared_version == version:
            return
        has_modes = self.input_spec.evaluation_only or any(
            getattr(vertex.module, "has_modes", False) for vertex in self.inner_vertices
        )
        shared = len(self.output_vertices) == 1 and not has_modes
        programs = {False: compile_forward(self, training=False)}
        programs[True] = programs[False] if shared else compile_forward(self, training=True)
        self._programs = programs
        self._calls = tuple(vertex.module for vertex in self.inner_vertices)
        self._prepared_version = version

    # torch.compile runs this while it compiles instead of tracing it, and guards on the version; this is what
    # torch.compiler.assume_constant_result sets, which would import all of torch._dynamo.
    _prepare._dynamo_marked_constant = True  # type: ignore[attr-defined]

    # Text and files --------------------------------------------------------------------------------------------

    def summary(self) -> str:
        """Return a table: vertices by op, parameters, inputs and assumptions."""
        return summarize(self)

    def __str__(self) -> str:
        return to_text(self)

    def save(
        self, path: str | Path, *, registry: Registry | None = None, max_shard_size: int | str | None = None
    ) -> None:
        """Write the graph and its weights to one safetensors file, or to several; see `torch_dag_core.save`."""
        from torch_dag_core.serialization import save

        save(self, path, registry=registry, max_shard_size=max_shard_size)

    @staticmethod
    def load(path: str | Path, *, registry: Registry | None = None, atomic_modules: tuple[type, ...] = ()) -> DagModule:
        """Read a graph written by `save`; see `torch_dag_core.load`."""
        from torch_dag_core.serialization import load

        return load(path, registry=registry, atomic_modules=atomic_modules)

    # Pictures --------------------------------------------------------------------------------------------------

    def to_svg(self, before: DagModule | None = None, *, depth: int | None = None) -> str:
        """Return the graph as a vector graphic; the plugin torch-dag-show draws it. Runs the graph without data.

        Args:
            before: A graph to compare with; sizes that differ are shown with their earlier ones.
            depth: How many parts the names of those modules have which are drawn as one box each: 1 folds ``layer1``, 2
                ``layer1.0``. None draws every vertex.

        Raises:
            PluginLoadError: no plugin that takes part draws this format.
            InputError: a graph does not run at the sizes that it remembers, or the depth is less than 1.
        """
        from torch_dag_core.pictures import picture

        return picture(self, ".svg", before, depth)

    def to_dot(self, before: DagModule | None = None, *, depth: int | None = None) -> str:
        """Return the graph in Graphviz's language; the plugin torch-dag-show writes it. See `to_svg`."""
        from torch_dag_core.pictures import picture

        return picture(self, ".dot", before, depth)

    def _repr_html_(self) -> str:
        from torch_dag_core.pictures import notebook_html

        return notebook_html(self)

    # Copying ---------------------------------------------------------------------------------------------------

    def clone(self) -> DagModule:
        """Return an independent deep copy, on the same devices. O(size)."""
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        """Store the graph flat: a chain of thousands of vertices must not recurse."""
        hidden = {"_records", "_order", "_programs", "_calls"}
        state = {key: value for key, value in self.__dict__.items() if key not in hidden}
        state["_flat"] = self._records.flat()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Rebuild the vertices from their flat form."""
        vertices, outputs = state.pop("_flat")
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._clear()
        built = self._records.restore(vertices)
        for training_only, (structure, positions) in enumerate(outputs):
            self.set_outputs(structure, [built[p] for p in positions], training_only=bool(training_only))
