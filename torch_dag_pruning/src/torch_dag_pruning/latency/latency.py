"""The latency of a graph as a function of the number of slots that its orbits keep."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from torch_dag_core.graph.builtin_ops import Constant, GetItem, TrainingSwitch
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.entry_checks import require_graphs
from torch_dag_core.graph.interpret import live_inner_vertices
from torch_dag_core.shape_run import ShapeRun
from torch_dag_pruning.analysis.analysis import analyze
from torch_dag_pruning.cut import Cut
from torch_dag_pruning.errors import LatencyError
from torch_dag_pruning.latency.providers import LatencyProvider, provider_named
from torch_dag_pruning.latency.table import LatencyTable
from torch_dag_pruning.plan.plan import Plan

if TYPE_CHECKING:
    from torch_dag_core.plugins.registry import Registry
    from torch_dag_pruning.analysis.analysis import Analysis

_FREE = frozenset({Constant, GetItem, TrainingSwitch})


@dataclass(frozen=True, kw_only=True)
class Latency:
    """How latencies are measured.

        plan = tdp.Plan.by_importance(analysis, "l2", latency_ms=3.0, latency=tdp.Latency(on="cpu"))

    The time of a pruned graph is the sum of the times of its ops at their smaller sizes, times the ratio of the
    measured time of the whole graph to the sum over its ops, which differ where a runtime fuses ops.

    Attributes:
        on: A device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, the name of one that a plugin offers, or an object.
        table: A file of measured times, which is made or extended; None measures again in each process.
        batch: Number of samples in a call, where the graph leaves it free.
        multiple: Numbers of slots are rounded up to a multiple of this before they are timed, so that fewer sizes have
            to be measured.
    """

    on: str | LatencyProvider = "cpu"
    table: Path | str | None = None
    batch: int = 1
    multiple: int = 8
    _times: LatencyTable = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the fields, and read the table.

        Raises:
            LatencyError: a field is wrong, or the file is no table of latencies.
        """
        for name in ("batch", "multiple"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                message = f"{name} must be an integer of at least 1, got {getattr(self, name)!r}"
                raise LatencyError(message)
        _ = self.provider
        object.__setattr__(self, "_times", LatencyTable(None if self.table is None else Path(self.table)))

    @cached_property
    def provider(self) -> LatencyProvider:
        """The device."""
        return provider_named(self.on) if isinstance(self.on, str) else self.on

    def of(self, analysis: Analysis) -> Callable[[Mapping[int, int]], float]:
        """Return the latency of a graph in milliseconds, as a function of the kept slots by atom id.

        Raises:
            LatencyError: an op cannot be measured; names the vertex.
        """
        return _Timed(self, analysis)

    def measured(self, dag: DagModule) -> float:
        """Return the measured latency of a whole graph, in milliseconds."""
        require_graphs("measured()", dag)
        blanks = self.inputs(dag)
        return 1e3 * self.provider.measure(dag, [_filled(blank) for blank in blanks])

    def inputs(self, dag: DagModule, blanks: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Return inputs without data for a call of a graph with ``batch`` samples."""
        require_graphs("inputs()", dag)
        blanks = analyze(dag)._sizes if blanks is None else blanks
        is_free = [spec.shape[:1] == (None,) for spec in dag.input_spec.tensors] or [True] * len(blanks)
        shapes = [
            (self.batch, *blank.shape[1:]) if free else tuple(blank.shape)
            for blank, free in zip(blanks, is_free, strict=True)
        ]
        return [torch.empty(s, dtype=b.dtype, device="meta") for s, b in zip(shapes, blanks, strict=True)]

    def seconds(self, key: str, vertex: str, module: nn.Module, operands: Sequence[Any]) -> float:
        """Return the time of one op, measured if the table lacks it.

        Raises:
            LatencyError: it cannot be measured; names the vertex.
        """
        times = self._times.of(f"{self.provider.name}: {self.provider.device}")
        if key not in times:
            try:
                taken: Any = self.provider.measure(module, [tree_map(_filled, operand) for operand in operands])
            except Exception as error:
                message = f"vertex {vertex!r} cannot be measured on {self.provider.name!r}: {error}"
                raise LatencyError(message) from error
            if not (isinstance(taken, float) and math.isfinite(taken) and taken >= 0):
                message = f"{self.provider.name!r} says that vertex {vertex!r} takes {taken!r} seconds"
                raise LatencyError(message)
            times[key] = taken
        return times[key]


class _Timed:
    """The latency of one graph."""

    def __init__(self, latency: Latency, analysis: Analysis) -> None:
        self._latency, self._analysis = latency, analysis
        self._known: dict[tuple[int, ...], float] = {}

    def __call__(self, counts: Mapping[int, int]) -> float:
        rounded = {o.key: self._rounded(counts.get(o.atom.id, o.n), o.n) for o in self._analysis.orbits}
        form = tuple(rounded.values())
        if form not in self._known:
            plan = Plan.keeping(self._analysis, {key: range(count) for key, count in rounded.items()})
            self._known[form] = self._sum(Cut(self._analysis, plan).removed()) * self._factor
            self._latency._times.save()
        return 1e3 * self._known[form]

    def _rounded(self, count: int, n: int) -> int:
        step = self._latency.multiple
        return min(n, math.ceil(count / step) * step)

    @cached_property
    def _factor(self) -> float:
        """The time of the whole graph, measured in one call, over the sum of the times of its ops."""
        dag = self._analysis.dag
        calls = list(self._calls(dag))
        name = hashlib.sha256("\n".join(key for key, *_ in calls).encode()).hexdigest()
        blanks = self._latency.inputs(self._analysis._source, self._analysis._sizes)
        whole = self._latency.seconds(f"graph {name}", "output", dag.clone().eval(), blanks)
        return whole / max(sum(self._latency.seconds(*call) for call in calls), 1e-12)

    def _sum(self, dag: DagModule) -> float:
        return sum(self._latency.seconds(*call) for call in self._calls(dag))

    def _calls(self, dag: DagModule) -> Iterator[tuple[str, str, nn.Module, list[Any]]]:
        """Iterate over the ops of a graph that take time: key, vertex, module, and operands without data."""
        dag.eval()
        registry = self._analysis.registry
        values = ShapeRun(registry).values(dag, self._latency.inputs(dag, self._analysis._sizes))
        for vertex in live_inner_vertices(dag, training=False):
            if type(vertex.module) not in _FREE:
                operands = [values[predecessor] for predecessor in vertex.predecessors]
                yield key_of(vertex.module, operands, registry), vertex.name, vertex.module, operands


def key_of(module: nn.Module, operands: Sequence[Any], registry: Registry) -> str:
    """Return a text that is equal for calls that take equally long: op, configuration, and shapes and dtypes."""
    spec = registry.for_module(module)
    named = (*module.named_parameters(), *module.named_buffers())
    own = [(name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in named]
    codec = None if spec is None else spec.codec
    config = repr(codec.config(module)) if codec is not None else type(module).__qualname__
    return " ".join((spec.key if spec is not None else "", config, repr(own), repr(tree_map(_form, operands))))


def _form(value: Any) -> Any:
    return (tuple(value.shape), str(value.dtype)) if isinstance(value, Tensor) else repr(value)


def _filled(value: Any) -> Any:
    """Return a tensor with data for one without: random numbers, and zeros of integers, which index everything."""
    if not isinstance(value, Tensor) or not value.is_meta:
        return value
    if value.is_floating_point():
        return torch.randn(value.shape, dtype=value.dtype)
    return torch.zeros(value.shape, dtype=value.dtype)
