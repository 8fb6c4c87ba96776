"""The checks of the plugin contract. Each runs on one case; graphs and algorithms rely on all of them."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from torch_dag_core.analysis.call_cost import call_flops
from torch_dag_core.analysis.cost_table import flops
from torch_dag_core.errors import SerializationError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.plugins.registry import AtomicSpec, Normalizer, OpSpec, Registry
from torch_dag_core.serialization import load, save
from torch_dag_core.testing.cases import Case, Record, copied, record_name, run
from torch_dag_core.tracing.tensors import tensors_in

_RELATIVE, _ABSOLUTE = 1e-4, 1e-5
_SHARE_OF_COST = 0.1


class ContractError(AssertionError):
    """A record breaks the contract of plugins."""


@dataclass(frozen=True)
class ContractCheck:
    """One check; plugins add theirs through the hook ``torch_dag_contract_checks``.

    Attributes:
        name: A verb.
        run: Raises a `ContractError` if the case breaks the contract.
        applies: Tells whether the check applies to a case.
    """

    name: str
    run: Callable[[Case], None]
    applies: Callable[[Case], bool] = lambda _: True


def same(case: Case, what: str, wanted: Any, found: Any, *, close: bool = False) -> None:
    """Raise an error if two results differ.

    Args:
        case: The case, for the error.
        what: What was done to it, for the error.
        wanted: The expected result.
        found: The actual result.
        close: Accept rounding errors; otherwise the results must be equal bit for bit.

    Raises:
        ContractError: names the case, what was done to it, and the difference.
    """
    try:
        torch.testing.assert_close(
            found, wanted, equal_nan=True, rtol=_RELATIVE if close else 0.0, atol=_ABSOLUTE if close else 0.0
        )
    except AssertionError as error:
        message = f"{case.name}: {what}: {error}"
        raise ContractError(message) from error


def traces(case: Case) -> None:
    """A model that holds the module converts by way of the record and computes the same in both modes."""
    dag, is_used = _CONVERSIONS[type(case.record)](case)
    if not is_used:
        message = f"{case.name}: a model that holds its example does not use the record; it became {dag}"
        raise ContractError(message)
    for training in (False, True):
        found = run(dag, case.inputs, training=training)
        mode = "training" if training else "evaluation"
        same(case, f"converted, in {mode}", case.wanted(training=training), found, close=True)


def _by_op(case: Case) -> tuple[DagModule, bool]:
    dag = case.converted()
    kept = [vertex.name for vertex in dag.inner_vertices if type(vertex.module) is type(case.module)]
    atomic = case.registry.atomic_for(case.module)
    return dag, kept == ["inner"] or (atomic is not None and (atomic.convert or atomic.trace_as) is not None)


def _by_atomic_module(case: Case) -> tuple[DagModule, bool]:
    found = map(case.registry.atomic_for, case.module.modules())
    return case.converted(), any(atomic is not None and atomic.name == record_name(case.record) for atomic in found)


def _by_normalizer(case: Case) -> tuple[DagModule, bool]:
    record = cast("Normalizer", case.record)
    results: list[Any] = []

    def normalize(*args: Any, **kwargs: Any) -> Any:
        results.append(record.normalize(*args, **kwargs))
        return results[-1]

    registry = case.registry.copy()
    registry.add_normalizer(replace(record, normalize=normalize), owner=record.owner)
    dag = replace(case, registry=registry).converted()
    return dag, any(result is not NotImplemented for result in results)


_CONVERSIONS: dict[type[Record], Callable[[Case], tuple[DagModule, bool]]] = {
    OpSpec: _by_op, AtomicSpec: _by_atomic_module, Normalizer: _by_normalizer,
}  # fmt: skip


def runs(case: Case) -> None:
    """A graph of one vertex computes what the module does, and leaves inputs as they were."""
    for training in (False, True):
        found = run(case.graph(), case.inputs, training=training)
        same(case, "as a graph", case.wanted(training=training), found)
    inputs = copied(case.inputs)
    copy.deepcopy(case.module).eval()(*inputs)
    same(case, "an input was overwritten", copied(case.inputs), inputs)


def clones(case: Case) -> None:
    """A clone of the graph computes the same and shares no tensor."""
    dag = case.graph()
    _unchanged_and_apart(case, "cloned", dag, dag.clone())


def deepcopies(case: Case) -> None:
    """The module survives ``copy.deepcopy`` on its own and in a graph."""
    same(case, "copied", case.wanted(), run(copy.deepcopy(case.module), case.inputs))
    dag = case.graph()
    _unchanged_and_apart(case, "deep-copied in a graph", dag, copy.deepcopy(dag))


def _unchanged_and_apart(case: Case, what: str, dag: DagModule, twin: DagModule) -> None:
    same(case, what, run(dag, case.inputs), run(twin, case.inputs))
    own = {tensor.data_ptr() for tensor in _tensors(dag) if tensor.numel()}
    if own & {tensor.data_ptr() for tensor in _tensors(twin) if tensor.numel()}:
        message = f"{case.name}: {what}, it shares tensors with the original"
        raise ContractError(message)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def saves(case: Case) -> None:
    """A saved graph loads with equal results and saves to equal bytes; a module without a codec is refused by name."""
    dag = case.graph()
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder, "first.safetensors"), Path(folder, "second.safetensors")
        without_codec = [vertex for vertex in dag.inner_vertices if not _has_codec(vertex.module, case.registry)]
        if without_codec:
            _is_refused(case, dag, without_codec[0].name, first)
            return
        save(dag, first, registry=case.registry)
        loaded = load(first, registry=case.registry)
        save(loaded, second, registry=case.registry)
        if first.read_bytes() != second.read_bytes():
            message = f"{case.name}: loaded and saved again, the file differs"
            raise ContractError(message)
    for training in (False, True):
        wanted, found = (run(graph, case.inputs, training=training) for graph in (dag, loaded))
        same(case, "saved and loaded", wanted, found)


def _has_codec(module: nn.Module, registry: Registry) -> bool:
    spec = registry.for_module(module)
    return spec is not None and spec.codec is not None


def _is_refused(case: Case, dag: DagModule, vertex: str, path: Path) -> None:
    try:
        save(dag, path, registry=case.registry)
    except SerializationError as error:
        if vertex in str(error):
            return
    message = f"{case.name}: vertex {vertex!r} has no codec, and saving the graph was not refused by that name"
    raise ContractError(message)


def compiles(case: Case) -> None:
    """``torch.compile`` runs the graph; a graph break is allowed."""
    dag = case.graph().eval()
    torch._dynamo.reset()
    compiled = torch.compile(dag, backend="eager")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's warnings are not about the plugin
        torch.manual_seed(0)
        found = compiled(*copied(case.inputs))
    same(case, "compiled", run(dag, case.inputs), found)


def costs(case: Case) -> None:
    """The FLOPs rule returns a count, returns the same one again, and does not change the module."""
    whole = copy.deepcopy(case.module).eval() if case.op else case.graph()
    before, shown = copied(tuple(_tensors(whole))), repr(whole)
    counts = {_cost(case, whole) for _ in range(2)}
    if len(counts) > 1:
        message = f"{case.name}: two calls of its FLOPs rule gave {' and '.join(map(str, sorted(counts)))}"
        raise ContractError(message)
    same(case, "its FLOPs rule changed the module", before, tuple(_tensors(whole)))
    if repr(whole) != shown:
        message = f"{case.name}: its FLOPs rule made the module {whole}, from {shown}"
        raise ContractError(message)


def _cost(case: Case, module: nn.Module) -> Any:
    if isinstance(module, DagModule):
        return flops(module, (case.inputs, {}), registry=case.registry).flops
    return flops_of(case.op, module, case.inputs, run(module, case.inputs))


def expands(case: Case) -> None:
    """The expansion consists of registered ops, computes the same, and costs about what the op's FLOPs rule says."""
    assert case.op is not None
    assert case.op.expand is not None
    dag = replace(case, module=case.op.expand(copy.deepcopy(case.module))).converted()
    same(case, "expanded", case.wanted(), run(dag, case.inputs), close=True)
    unknown = [vertex.name for vertex in dag.inner_vertices if case.registry.for_module(vertex.module) is None]
    if unknown:
        message = f"{case.name}: vertex {unknown[0]!r} of its expansion is no registered op"
        raise ContractError(message)
    whole = flops_of(case.op, case.module, case.inputs, case.wanted())
    parts = _graph_flops(dag.eval(), case)
    if abs(whole - parts) > _SHARE_OF_COST * max(whole, parts):
        message = f"{case.name}: its FLOPs rule says {whole}, the ops of its expansion add up to {parts}"
        raise ContractError(message)


def _graph_flops(dag: DagModule, case: Case) -> Any:
    values: dict[Any, Any] = dict(zip(dag.input_vertices, copied(case.inputs), strict=True))
    total = 0
    for vertex in dag.inner_vertices:
        operands = tuple(values[predecessor] for predecessor in vertex.predecessors)
        values[vertex] = vertex.module(*operands)
        total += flops_of(case.registry.for_module(vertex.module), vertex.module, operands, values[vertex])
    return total


def flops_of(spec: OpSpec | None, module: nn.Module, inputs: Any, outputs: Any) -> Any:
    """Return the FLOPs of one call by the rule of an op, for actual inputs and outputs."""
    parameters = {name: tuple(tensor.shape) for name, tensor in module.named_parameters()}
    return call_flops(spec, module, _shapes(inputs), _shapes(outputs), parameters)


def _shapes(value: Any) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in tensors_in(value)]


def _with_inputs(case: Case) -> bool:
    return bool(case.inputs)


def _of_an_op(case: Case) -> bool:
    return case.op is not None


def _with_expansion(case: Case) -> bool:
    return case.op is not None and case.op.expand is not None


CHECKS: tuple[ContractCheck, ...] = (
    ContractCheck("traces", traces, _with_inputs),
    ContractCheck("runs", runs, _of_an_op),
    ContractCheck("clones", clones),
    ContractCheck("deepcopies", deepcopies),
    ContractCheck("saves", saves),
    ContractCheck("compiles", compiles),
    ContractCheck("costs", costs),
    ContractCheck("expands", expands, _with_expansion),
)
