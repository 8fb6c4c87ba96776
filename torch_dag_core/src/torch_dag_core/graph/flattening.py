"""Nested graphs inlined into a flat copy."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import nn

from torch_dag_core.graph.builtin_ops import GetItem, TrainingSwitch
from torch_dag_core.graph.checkpoint_keys import MOVED, note_move
from torch_dag_core.graph.inputs import Parameter
from torch_dag_core.graph.values import Slot
from torch_dag_core.graph.vertex import InnerVertex, UserVertex, Vertex

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule


@dataclass(eq=False)
class _Packed:
    """A container that a nested graph returned; a vertex builds it only if some vertex reads it as a whole."""

    structure: Any
    values: list[Value]
    name: str
    vertex: InnerVertex | None = None

    def item(self, index: int) -> Value | None:
        """Return the value of one element, or None if the element is a container itself."""
        structure = self.structure
        if isinstance(structure, (tuple, list)) and -len(structure) <= index < len(structure):
            element = structure[index]
            return self.values[element.index] if isinstance(element, Slot) else None
        return None


Value: TypeAlias = Vertex | _Packed


def flatten(
    graph: DagModule, graph_type: type[DagModule], shared: dict[int, Any] | None = None,
    expansions: Mapping[InnerVertex, DagModule] | None = None,
) -> DagModule:  # fmt: skip
    """Return a copy without nested graphs; see `DagModule.flatten`.

    Args:
        graph: What is copied.
        graph_type: `DagModule`; this module lies below it.
        shared: Objects that are used as they are instead of copied, by id, as in a `copy.deepcopy` memo.
        expansions: Graphs that are inlined in place of the modules of some vertices.
    """
    return _Flattening(graph, graph_type, dict(shared or {}), dict(expansions or {})).run()


@dataclass
class _Frame:
    """One graph that is being copied: the copies of its vertices so far, and the vertex that calls it."""

    graph: DagModule
    prefix: str
    values: dict[Vertex, Value]
    rest: Iterator[InnerVertex]
    call: InnerVertex | None = None

    def operands(self, vertex: UserVertex) -> list[Value]:
        """Return what the copy of ``vertex`` reads."""
        return [self.values[predecessor] for predecessor in vertex.predecessors]


@dataclass
class _Flattening:
    """A copy in progress, with a stack of frames instead of recursion."""

    source: DagModule
    graph_type: type[DagModule]
    memo: dict[int, Any] = field(default_factory=dict)
    expansions: dict[InnerVertex, DagModule] = field(default_factory=dict)
    flat: DagModule = field(init=False)
    registered: dict[nn.Module, tuple[int, InnerVertex]] = field(default_factory=dict)
    stack: list[_Frame] = field(default_factory=list)

    def run(self) -> DagModule:
        """Copy everything and return the new graph."""
        source = self.source
        self.flat = self._new_graph(training=source.training)
        self.flat.input_spec = source.input_spec
        self.flat.provenance = copy.deepcopy(source.provenance)
        values: dict[Vertex, Value] = {vertex: self.flat.add_input(vertex.name) for vertex in source.input_vertices}
        outermost = _Frame(source, "", values, iter(source.inner_vertices))
        self.stack.append(outermost)
        while self.stack:
            self._step(self.stack[-1])
        for training_only, output in enumerate(source.output_vertices):
            operands = self._vertices(outermost.operands(output))
            self.flat.set_outputs(copy.deepcopy(output.structure), operands, training_only=bool(training_only))
        for _, vertex in self.registered.values():
            self.flat._records.registrations.put_first(vertex)
        return self.flat

    def _new_graph(self, *, training: bool) -> DagModule:
        graph = self.graph_type()
        graph.training = training
        return graph

    def _step(self, frame: _Frame) -> None:
        vertex = next(frame.rest, None)
        if vertex is None:
            self.stack.pop()
            if frame.call is not None:
                self.stack[-1].values[frame.call] = self._result(frame)
            return
        nested = self._inlinable(vertex, frame.graph)
        if nested is not None:
            self._enter(frame, vertex, nested)
            return
        item = _item(vertex, frame)
        frame.values[vertex] = self._copy(frame, vertex) if item is None else item

    def _inlinable(self, vertex: InnerVertex, graph: DagModule) -> DagModule | None:
        """Return the nested graph of a vertex if its vertices can be copied into the outer graph, else None."""
        nested = self.expansions.get(vertex, vertex.module)
        if not isinstance(nested, self.graph_type):
            return None
        if not _takes_values(vertex, nested) or not _same_mode(nested, graph):
            return None
        evaluation, training = (nested.output_vertex(training=mode).structure for mode in (False, True))
        return nested if evaluation == training else None

    def _enter(self, frame: _Frame, vertex: InnerVertex, nested: DagModule) -> None:
        if nested.input_spec.evaluation_only:
            self.flat.input_spec = replace(self.flat.input_spec, evaluation_only=True)
        places = [parameter.structure.index for parameter in _parameters(nested)]
        by_place = dict(zip(places, frame.operands(vertex), strict=True))
        values: dict[Vertex, Value] = {v: by_place[place] for place, v in enumerate(nested.input_vertices)}
        prefix = f"{frame.prefix}{vertex.name}."
        self.stack.append(_Frame(nested, prefix, values, iter(nested.inner_vertices), vertex))

    def _copy(self, frame: _Frame, vertex: InnerVertex) -> InnerVertex:
        name = self.flat.unique_name(frame.prefix + vertex.name)
        module = copy.deepcopy(vertex.module, self.memo)
        added = self.flat.add_vertex(name, module, self._vertices(frame.operands(vertex)))
        moved = frame.graph.provenance.get(MOVED, {})
        if frame.call is not None and vertex.name in moved:
            note_move(self.flat, name, ".".join(filter(None, (frame.prefix[:-1], moved[vertex.name]))))
        depth = len(self.stack)
        is_first = frame.graph._records.registrations.first_owner(vertex.module) is vertex
        if is_first and depth < self.registered.get(module, (depth + 1,))[0]:
            self.registered[module] = (depth, added)
        return added

    def _result(self, frame: _Frame) -> Value:
        """Return what the nested graph returns, with a `TrainingSwitch` where training returns something else."""
        evaluation, training = frame.graph.output_vertex(training=False), frame.graph.output_vertex(training=True)
        pairs = zip(frame.operands(evaluation), frame.operands(training), strict=True)
        values = [first if first is second else self._switch(frame, first, second) for first, second in pairs]
        structure = evaluation.structure
        if isinstance(structure, Slot):
            return values[structure.index]
        name = f"{frame.prefix}output" if frame.graph.inner_vertices else frame.prefix[:-1]
        return _Packed(structure, values, name)

    def _switch(self, frame: _Frame, evaluation: Value, training: Value) -> InnerVertex:
        module = TrainingSwitch().train(self.flat.training)
        name = self.flat.unique_name(f"{frame.prefix}output")
        return self.flat.add_vertex(name, module, self._vertices([evaluation, training]))

    def _vertices(self, values: Iterable[Value]) -> list[Vertex]:
        return [self._built(value) if isinstance(value, _Packed) else value for value in values]

    def _built(self, packed: _Packed) -> InnerVertex:
        """Return the vertex that builds a container: its module is a graph without inner vertices."""
        if packed.vertex is None:
            operands = self._vertices(packed.values)
            building = self._new_graph(training=self.flat.training)
            inputs = [building.add_input(f"input_{index}") for index in range(len(operands))]
            building.set_outputs(copy.deepcopy(packed.structure), inputs)
            building.input_spec = building.input_spec.for_inputs(len(operands))
            packed.vertex = self.flat.add_vertex(self.flat.unique_name(packed.name), building, operands)
        return packed.vertex


def _item(vertex: InnerVertex, frame: _Frame) -> Value | None:
    """Return the value that a `GetItem` vertex picks from a known container, or None."""
    if not isinstance(vertex.module, GetItem):
        return None
    (operand,) = frame.operands(vertex)
    return operand.item(vertex.module.index) if isinstance(operand, _Packed) else None


def _parameters(nested: DagModule) -> tuple[Parameter, ...]:
    return nested.input_spec.for_inputs(len(nested.input_vertices)).parameters


def _takes_values(vertex: InnerVertex, nested: DagModule) -> bool:
    parameters = _parameters(nested)
    simple = all(isinstance(parameter.structure, Slot) for parameter in parameters)
    return simple and len(vertex.predecessors) == len(parameters) == len(nested.input_vertices)


def _same_mode(nested: DagModule, graph: DagModule) -> bool:
    """Tell whether both can have one training flag: they are in the same mode, or the mode changes nothing."""
    modes = len(nested.output_vertices) > 1 or any(
        getattr(vertex.module, "has_modes", False) for vertex in nested.inner_vertices
    )
    return nested.training == graph.training or not modes
