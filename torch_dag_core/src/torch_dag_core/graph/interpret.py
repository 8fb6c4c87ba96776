"""A graph run vertex by vertex, which gives access to intermediate values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from torch_dag_core.graph.entry_checks import require_graphs
from torch_dag_core.graph.inputs import Binding
from torch_dag_core.graph.program import chosen_operand, live_vertices
from torch_dag_core.graph.structure import unpack
from torch_dag_core.graph.vertex import InnerVertex, Vertex

if TYPE_CHECKING:
    from torch_dag_core.graph.dag import DagModule

Call = Callable[[InnerVertex, tuple[Any, ...]], Any]


def interpret(dag: DagModule, *args: Any, **kwargs: Any) -> Iterator[tuple[Vertex, Any]]:
    """Run the graph and yield each vertex with its value, the inputs first, the whole result last.

    The last pair holds the output vertex and what ``dag(*args, **kwargs)`` returns. Vertices that the graph's mode
    does not need are left out. Values are forgotten after their last use.

    >>> import torch
    >>> from torch_dag_core import build_from_unstructured_module, interpret
    >>> dag = build_from_unstructured_module(torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU()))
    >>> [(vertex.name, tuple(value.shape)) for vertex, value in interpret(dag, torch.ones(3, 4))]
    [('input', (3, 4)), ('0', (3, 2)), ('1', (3, 2)), ('output', (3, 2))]
    """
    require_graphs("interpret()", dag)
    if dag.training and dag.input_spec.evaluation_only:
        dag.input_spec.reject_training()
    return walk(dag, bind_inputs(dag, *args, **kwargs), lambda vertex, operands: vertex.module(*operands))


def walk(
    dag: DagModule, inputs: Sequence[Any], call: Call, *, training: bool | None = None
) -> Iterator[tuple[Vertex, Any]]:
    """Yield each vertex with its value, inner ones computed by ``call``, and the output vertex with the result.

    ``training`` chooses the branches and the output of one mode; those of the graph's own mode by default.
    """
    training = dag.training if training is None else training
    output = dag.output_vertex(training=training)
    order = live_inner_vertices(dag, training=training)
    reads = {vertex: _reads(vertex, training=training) for vertex in order}
    remaining = Counter(read for operands in reads.values() for read in operands)
    remaining.update(output.predecessors)
    remaining.update(order)  # each keeps its own value until it is yielded
    values: dict[Vertex, Any] = dict(zip(dag.input_vertices, inputs, strict=True))
    yield from tuple(values.items())
    for vertex in order:
        operands = tuple(values[read] for read in reads[vertex])
        is_switch = len(reads[vertex]) < len(vertex.predecessors)
        values[vertex] = operands[0] if is_switch else call(vertex, operands)
        del operands
        yield vertex, values[vertex]
        _forget(values, remaining, (vertex, *reads[vertex]))
    yield output, unpack(output.structure, [values[vertex] for vertex in output.predecessors])


def live_inner_vertices(graph: DagModule, *, training: bool) -> list[InnerVertex]:
    """Return the inner vertices that a mode needs, in the order in which they run."""
    live = live_vertices(graph, training=training)
    return [vertex for vertex in graph.inner_vertices if vertex in live]


def _reads(vertex: InnerVertex, *, training: bool) -> tuple[Vertex, ...]:
    """Return the operands that the vertex reads in this mode."""
    chosen = chosen_operand(vertex, training=training)
    return vertex.predecessors if chosen is None else (chosen,)


def _forget(values: dict[Vertex, Any], remaining: Counter[Vertex], read: tuple[Vertex, ...]) -> None:
    remaining.subtract(read)
    for vertex in set(read):
        if not remaining[vertex]:
            del values[vertex]


def bind_inputs(graph: DagModule, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
    """Return the input tensors of a call, in the order of the input vertices.

    Raises:
        InputError: the arguments are outside what the model was traced for.
    """
    binding = Binding(graph.input_spec.for_inputs(len(graph.input_vertices))).render()
    names = "".join(f"_x{index}, " for index in range(len(graph.input_vertices)))
    head = f"def bind({', '.join(['self', *binding.signature])}):"
    source = "\n    ".join([head, *binding.lines, f"return ({names})"])
    namespace: dict[str, Any] = dict(binding.constants)
    exec(compile(source, "<torch-dag inputs>", "exec"), namespace)  # noqa: S102
    return namespace["bind"](graph, *args, **kwargs)  # type: ignore[no-any-return]
