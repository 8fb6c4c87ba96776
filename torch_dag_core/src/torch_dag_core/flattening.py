"""Nested graphs inlined into a flat copy."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from torch_dag_core.graph import Graph
from torch_dag_core.inputs import Parameter
from torch_dag_core.nesting import new_graph
from torch_dag_core.ops.layout import GetItem
from torch_dag_core.ops.stochastic import TrainingSwitch
from torch_dag_core.structure import slots
from torch_dag_core.values import Slot
from torch_dag_core.vertex import InnerVertex, OutputVertex, UserVertex, Vertex

if TYPE_CHECKING:
    from torch_dag_core.dag import DagModule

Value = Vertex | tuple[Vertex, ...]


def flatten(graph: Graph) -> DagModule:
    """Do what `Surgery.flatten` says."""
    return _Flattening(graph).run()


@dataclass
class _Frame:
    """One graph being copied: the new vertices of its vertices so far, and who asked for it."""

    graph: Graph
    prefix: str
    values: dict[Vertex, Value]
    rest: Iterator[InnerVertex]
    call: InnerVertex | None = None

    def operands(self, vertex: UserVertex) -> list[Vertex]:
        """Return the new vertices that the copy of ``vertex`` reads."""
        return [self.values[predecessor] for predecessor in vertex.predecessors]  # type: ignore[misc]


@dataclass
class _Flattening:
    """A copy in progress: an explicit stack of frames instead of recursion."""

    source: Graph
    flat: DagModule = field(init=False)
    memo: dict[int, Any] = field(default_factory=dict)
    registered: dict[nn.Module, tuple[int, InnerVertex]] = field(default_factory=dict)
    stack: list[_Frame] = field(default_factory=list)

    def run(self) -> DagModule:
        """Copy everything and return the new graph."""
        source = self.source
        self.flat = new_graph(training=source.training)
        self.flat.input_spec = source.input_spec
        self.flat.provenance = copy.deepcopy(source.provenance)
        values: dict[Vertex, Value] = {vertex: self.flat.add_input(vertex.name) for vertex in source.input_vertices}
        outermost = _Frame(source, "", values, iter(source.inner_vertices))
        self.stack.append(outermost)
        while self.stack:
            self._step(self.stack[-1])
        for training_only, output in enumerate(source.output_vertices):
            operands = outermost.operands(output)
            self.flat.set_outputs(copy.deepcopy(output.structure), operands, training_only=bool(training_only))
        for _, vertex in self.registered.values():
            self.flat._register_under(vertex)
        return self.flat

    def _step(self, frame: _Frame) -> None:
        vertex = next(frame.rest, None)
        if vertex is None:
            self.stack.pop()
            if frame.call is not None:
                self.stack[-1].values[frame.call] = self._result(frame)
            return
        nested = _inlinable(vertex, frame.graph)
        if nested is not None:
            self._enter(frame, vertex, nested)
            return
        operand = frame.values.get(vertex.predecessors[0]) if vertex.predecessors else None
        if isinstance(operand, tuple):
            frame.values[vertex] = operand[vertex.module.index]  # type: ignore[index]
        else:
            frame.values[vertex] = self._copy(frame, vertex)

    def _enter(self, frame: _Frame, vertex: InnerVertex, nested: DagModule) -> None:
        places = [parameter.structure.index for parameter in _parameters(nested)]
        by_place = dict(zip(places, frame.operands(vertex), strict=True))
        values: dict[Vertex, Value] = {v: by_place[place] for place, v in enumerate(nested.input_vertices)}
        prefix = f"{frame.prefix}{vertex.name}."
        self.stack.append(_Frame(nested, prefix, values, iter(nested.inner_vertices), vertex))

    def _copy(self, frame: _Frame, vertex: InnerVertex) -> InnerVertex:
        name = self.flat.unique_name(frame.prefix + vertex.name)
        module = copy.deepcopy(vertex.module, self.memo)
        added = self.flat.add_vertex(name, module, frame.operands(vertex))
        depth = len(self.stack)
        is_first = next(iter(frame.graph._owners[vertex.module])) is vertex
        if is_first and depth < self.registered.get(module, (depth + 1,))[0]:
            self.registered[module] = (depth, added)
        return added

    def _result(self, frame: _Frame) -> Value:
        """Return what the nested graph returns, by mode where training returns something else."""
        evaluation, training = frame.graph.output_vertex(training=False), frame.graph.output_vertex(training=True)
        values = [
            first if first is second else self._switch(frame.prefix, first, second)
            for first, second in zip(_returned(frame, evaluation), _returned(frame, training), strict=True)
        ]
        return values[0] if isinstance(evaluation.structure, Slot) else tuple(values)

    def _switch(self, prefix: str, evaluation: Vertex, training: Vertex) -> InnerVertex:
        module = TrainingSwitch().train(self.flat.training)
        return self.flat.add_vertex(self.flat.unique_name(f"{prefix}output"), module, [evaluation, training])


def _returned(frame: _Frame, output: OutputVertex) -> list[Vertex]:
    operands = frame.operands(output)
    return [operands[slot] for slot in slots(output.structure)]


def _parameters(nested: DagModule) -> tuple[Parameter, ...]:
    return nested.input_spec.for_inputs(len(nested.input_vertices)).parameters


def _inlinable(vertex: InnerVertex, graph: Graph) -> DagModule | None:
    """Return the nested graph of a vertex if vertices of the outer graph can stand for all of it."""
    from torch_dag_core.dag import DagModule

    nested = vertex.module
    if not isinstance(nested, DagModule) or not _takes_tensors(vertex, nested) or not _same_mode(nested, graph):
        return None
    layouts = [_layout(output.structure) for output in nested.output_vertices]
    if None in layouts or len(set(layouts)) > 1:
        return None
    width = layouts[0]
    return nested if width == _BARE or all(_picks(user, width) for user, _ in vertex.uses) else None


def _takes_tensors(vertex: InnerVertex, nested: DagModule) -> bool:
    parameters = _parameters(nested)
    simple = all(isinstance(parameter.structure, Slot) for parameter in parameters)
    return simple and len(vertex.predecessors) == len(parameters) == len(nested.input_vertices)


def _same_mode(nested: DagModule, graph: Graph) -> bool:
    """Tell whether one training flag can serve both: a frozen part keeps its own where that decides anything."""
    modes = len(nested.output_vertices) > 1 or any(
        getattr(vertex.module, "has_modes", False) for vertex in nested.inner_vertices
    )
    return nested.training == graph.training or not modes


_BARE = -1


def _layout(structure: Any) -> int | None:
    """Return n for a tuple or list of n tensors, `_BARE` for one tensor, None for anything else."""
    if isinstance(structure, Slot):
        return _BARE
    flat = isinstance(structure, (tuple, list)) and all(isinstance(item, Slot) for item in structure)
    return len(structure) if flat else None


def _picks(user: UserVertex, width: int | None) -> bool:
    module = getattr(user, "module", None)
    return width is not None and isinstance(module, GetItem) and -width <= module.index < width
