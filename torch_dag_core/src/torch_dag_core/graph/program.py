"""The ``forward`` of a graph as generated Python: one statement for each vertex, tensors freed after their last use."""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch_dag_core.graph.builtin_ops import TrainingSwitch
from torch_dag_core.graph.inputs import Binding
from torch_dag_core.graph.structure import render
from torch_dag_core.graph.vertex import InnerVertex, Vertex

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule

_VARIABLE = re.compile(r"\b_[vx]\d+\b")


def source_of(graph: DagModule, *, training: bool) -> tuple[str, dict[str, Any]]:
    """Return the text of ``forward(self, ...)`` for one mode, and the constants that it names."""
    binding = Binding(graph.input_spec.for_inputs(len(graph.input_vertices))).render()
    live = live_vertices(graph, training=training)
    output = graph.output_vertex(training=training)
    variables: dict[Vertex, str] = {vertex: f"_x{i}" for i, vertex in enumerate(graph.input_vertices)}
    body: list[str] = []
    for position, vertex in enumerate(graph.inner_vertices):
        if vertex not in live:
            continue
        chosen = chosen_operand(vertex, training=training)
        if chosen is not None:
            variables[vertex] = variables[chosen]
            continue
        variables[vertex] = f"_v{position}"
        operands = ", ".join(variables[predecessor] for predecessor in vertex.predecessors)
        body.append(f"_v{position} = _calls[{position}]({operands})")
    result = render(output.structure, [variables[vertex] for vertex in output.predecessors], binding.constants)
    body = _with_deletions(body, result)
    head = f"def forward({', '.join(['self', *binding.signature])}):"
    if training and graph.input_spec.evaluation_only:
        binding.lines.insert(0, "self.input_spec.reject_training()")
    lines = [head, *binding.lines, "_calls = self._calls", *body, f"return {result}"]
    return "\n    ".join(lines), binding.constants


def compile_forward(graph: DagModule, *, training: bool) -> Callable[..., Any]:
    """Return the compiled function of `source_of`, bound to the graph."""
    source, constants = source_of(graph, training=training)
    namespace: dict[str, Any] = dict(constants)
    exec(compile(source, f"<torch-dag forward, training={training}>", "exec"), namespace)  # noqa: S102
    # torch.compile traces a bound method that exists already, but not one that is created while it traces.
    return types.MethodType(namespace["forward"], graph)


class Forward:
    """The descriptor behind `DagModule.forward`: a generated function with the parameters of the source model.

    `torch.export` reads these parameters, since its ``dynamic_shapes`` are given by name. Like a method,
    ``forward`` can be replaced on an instance.
    """

    def __get__(self, graph: Any, owner: type | None = None) -> Callable[..., Any]:
        """Return the function for the graph's present state and mode, bound to the graph."""
        if graph is None:
            return self  # type: ignore[return-value]
        return graph._program()  # type: ignore[no-any-return]


def live_vertices(graph: DagModule, *, training: bool) -> set[Vertex]:
    """Return the vertices whose value, or whose effect on state, the given mode needs."""
    stack: list[Vertex] = list(graph.output_vertex(training=training).predecessors)
    stack += [vertex for vertex in graph.inner_vertices if vertex.has_side_effect]
    live = set(stack)
    while stack:
        vertex = stack.pop()
        chosen = chosen_operand(vertex, training=training)
        needed = vertex.predecessors if chosen is None else (chosen,)
        fresh = [p for p in needed if p not in live]
        live.update(fresh)
        stack.extend(fresh)
    return live


def chosen_operand(vertex: Vertex, *, training: bool) -> Vertex | None:
    """Return the operand that a `TrainingSwitch` passes on in this mode; None for any other vertex."""
    if isinstance(vertex, InnerVertex) and isinstance(vertex.module, TrainingSwitch):
        return vertex.predecessors[1 if training else 0]
    return None


def _with_deletions(body: list[str], result: str) -> list[str]:
    """Append ``del`` of each variable after the last line that reads it."""
    seen = set(_names(result))
    lines: list[str] = []
    for line in reversed(body):
        target, _, expression = line.partition(" = ")
        last = [name for name in dict.fromkeys(_names(expression)) if name not in seen]
        seen.update(last)
        dead = [*last, *([target] if target not in seen else [])]
        lines.append(f"{line}; del {', '.join(dead)}" if dead else line)
        seen.add(target)
    return lines[::-1]


def _names(expression: str) -> list[str]:
    return _VARIABLE.findall(expression)
