"""The input sizes at which a graph is analysed, and tensors of these sizes."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_core.conversion.example_inputs import STEPS, growth
from torch_dag_core.errors import InputError
from torch_dag_core.graph.conditions import hold
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.inputs import InputSpec
from torch_dag_core.graph.values import Record, Slot
from torch_dag_core.graph.vertex import Vertex
from torch_dag_core.ops.layout import Reshape
from torch_dag_core.shape_run import ShapeRun
from torch_dag_pruning.errors import AnalysisError

#: Batch sizes of the two runs. At least 2, because a dimension of size 1 broadcasts; small, because the proof of a
#: removal runs on the first.
_BATCHES = (2, 3)

#: Candidates for the step by which free sizes other than the batch grow in the second run; the first that the graph
#: accepts is used. The largest comes first, because the strides of a network are likely to divide it.
_STEPS = (*reversed(STEPS), 0)


def blank_inputs(dag: DagModule, example_inputs: Any) -> list[Tensor]:
    """Return a tensor without data for each input of the graph, of the example's size or of that of the trace.

    Raises:
        AnalysisError: no example is given, and the graph does not record the sizes of its trace.
    """
    if example_inputs is not None:
        return [blank(tensor.shape, tensor.dtype) for tensor in bound(dag, example_inputs)]
    sizes = [tensor.example_shape for tensor in dag.input_spec.tensors]
    if len(sizes) != len(dag.input_vertices) or None in sizes:
        message = "the graph does not remember sizes of its inputs; pass example_inputs"
        raise AnalysisError(message)
    pairs = zip(sizes, dag.input_spec.tensors, strict=True)
    return [blank(shape or (), tensor.dtype) for shape, tensor in pairs]


def bound(dag: DagModule, example_inputs: Any) -> list[Tensor]:
    """Return the tensors in the arguments of a call, in the order of the graph's inputs.

    Raises:
        AnalysisError: the arguments lack an input.
    """
    args, kwargs = _arguments(example_inputs)
    parameters = dag.input_spec.for_inputs(len(dag.input_vertices)).parameters
    given = {**dict(zip((p.name for p in parameters), args, strict=False)), **kwargs}
    found: dict[int, Tensor] = {}
    for parameter in parameters:
        if parameter.name in given:
            found.update(_tensors(parameter.structure, given[parameter.name]))
    missing = [vertex.name for place, vertex in enumerate(dag.input_vertices) if place not in found]
    if missing:
        message = f"example_inputs lack {', '.join(missing)}; pass them as the model's forward takes them"
        raise AnalysisError(message)
    return [found[place] for place in range(len(dag.input_vertices))]


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, dict):
        return (), inputs
    if not isinstance(inputs, tuple):
        return (inputs,), {}
    is_pair = len(inputs) == 2 and isinstance(inputs[0], tuple) and isinstance(inputs[1], dict)
    return inputs if is_pair else (inputs, {})


def _tensors(structure: Any, value: Any) -> Iterator[tuple[int, Tensor]]:
    stack = [(structure, value)]
    while stack:
        template, item = stack.pop()
        if isinstance(template, Slot):
            yield template.index, item
        elif isinstance(template, Record):
            stack += [(field, getattr(item, name)) for name, field in template.fields]
        elif isinstance(template, dict):
            stack += [(field, item[key]) for key, field in template.items()]
        elif isinstance(template, (tuple, list)):
            stack += list(zip(template, item, strict=True))


def filled(dag: DagModule, blanks: Sequence[Tensor], example_inputs: Any) -> list[Tensor]:
    """Return tensors of the sizes of ``blanks``: the samples of the example, repeated as needed, or random numbers."""
    device = next((tensor.device for tensor in (*dag.parameters(), *dag.buffers())), torch.device("cpu"))
    if example_inputs is None:
        return [_random(blank, device) for blank in blanks]
    pairs = zip(blanks, bound(dag, example_inputs), strict=True)
    return [_repeated(tensor, blank.shape).to(device) for blank, tensor in pairs]


def _repeated(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    if tensor.shape == torch.Size(shape):
        return tensor
    return tensor[torch.arange(shape[0], device=tensor.device) % tensor.shape[0]]


def _random(blank: Tensor, device: torch.device) -> Tensor:
    """Return random numbers; integers are 0 or 1, which are valid indices of every embedding."""
    if blank.is_floating_point():
        return torch.randn(blank.shape, dtype=blank.dtype, device=device)
    return torch.randint(0, 2, blank.shape, device=device).to(blank.dtype)


def sized_runs(
    dag: DagModule, example: Sequence[Tensor], run: ShapeRun
) -> Iterator[tuple[list[Tensor], Mapping[Vertex, Any]]]:
    """Run a graph without data at one or two input sizes, as far as it leaves sizes free.

    The first run has the sizes of the example with a batch of 2, the second larger ones with a batch of 3. An equality
    that holds at one size only may be a coincidence; one that holds at both follows from the graph
    (``docs/axis-algebra.md``, A10). Sizes at which the graph does not run are passed over.

    Yields:
        The inputs of a run, and the value of every vertex.

    Raises:
        InputError: the graph does not run at the sizes of the example either.
    """
    spec = dag.input_spec
    if not spec.tensors:
        yield list(example), run.values(dag, example)
        return
    first = [*_accepted(spec, example, [(_BATCHES[0], 0), (None, 0)]), list(example)]
    second = _accepted(spec, example, [(batch, step) for batch in (_BATCHES[1], None) for step in _STEPS])
    found = next((pair for pair in _runs(dag, first[:-1], run)), None) or (first[-1], run.values(dag, first[-1]))
    yield found
    larger = (inputs for inputs in second if [t.shape for t in inputs] != [t.shape for t in found[0]])
    yield from itertools.islice(_runs(dag, larger, run), 1)


def _accepted(
    spec: InputSpec, example: Sequence[Tensor], growths: Iterable[tuple[int | None, int]]
) -> Iterator[list[Tensor]]:
    """Yield the example with other batches and free sizes, where the assumptions of the graph allow them."""
    for batch, step in growths:
        tensors = _resized(spec, example, batch, step)
        if hold(spec.assumptions, [tensor.shape for tensor in tensors]):
            yield tensors


def _runs(
    dag: DagModule, choices: Iterable[list[Tensor]], run: ShapeRun
) -> Iterator[tuple[list[Tensor], Mapping[Vertex, Any]]]:
    for inputs in choices:
        with contextlib.suppress(InputError):  # the model was traced with fewer conditions than it has
            yield inputs, run.values(dag, inputs)


def is_rigid(dag: DagModule, values: Mapping[Vertex, Any]) -> bool:
    """Tell whether a second size cannot change the result, because no reshape regroups a free size.

    A reshape that keeps the first dimension and has numbers for all others has no free size among them before either.
    """
    reshapes = (v for v in dag.inner_vertices if isinstance(v.module, (Reshape, nn.Flatten, nn.Unflatten)))
    return all(_is_rigid_reshape(vertex.module, values[vertex.predecessors[0]], values[vertex]) for vertex in reshapes)


def _is_rigid_reshape(module: nn.Module, before: Tensor, after: Tensor) -> bool:
    if not isinstance(module, Reshape) or before.shape[:1] != after.shape[:1]:
        return False
    return all(isinstance(size, int) and size != -1 for size in module.shape[1:])


def batch_of(dag: DagModule, inputs: Sequence[Tensor]) -> int:
    """Return the number of samples in the inputs, or 1 if the batch size of the graph is not free."""
    spec = dag.input_spec
    free = (t.shape[0] for t, s in zip(inputs, spec.tensors, strict=False) if s.shape[:1] == (None,))
    return next(free, 1)


def _resized(spec: InputSpec, example: Sequence[Tensor], batch: int | None, step: int) -> list[Tensor]:
    first = next((t.shape[0] for t in example if t.dim()), None)
    result = []
    for tensor, form in zip(example, spec.tensors, strict=True):
        shape = list(tensor.shape)
        free = [dim for dim, size in enumerate(form.shape) if size is None]
        if 0 in free and batch is not None and shape[0] == first:
            shape[0] = batch
        for place, dim in enumerate(dim for dim in free if dim > 0):
            # The steps that tracing uses too, so that conditions on sizes hold as they did there.
            shape[dim] += growth(step, place)
        result.append(blank(shape, tensor.dtype))
    return result


def blank(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return a tensor on the meta device."""
    return torch.empty(tuple(shape), dtype=dtype, device="meta")
