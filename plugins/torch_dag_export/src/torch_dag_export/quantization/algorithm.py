"""Weights as 8-bit integers in the four steps that all algorithms have, for ``torch-dag run int8-weights``."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from torch_dag_core.algorithms.algorithm import Losses
from torch_dag_core.algorithms.reports import Candidate, CompressionReport, Skipped
from torch_dag_core.analysis.vertex_facts import vertex_facts
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.entry_checks import require_graphs
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_export.quantization.config import NAME, WeightQuantizationConfig
from torch_dag_export.quantization.expansion import expanded_copy
from torch_dag_export.quantization.rounding import rounded
from torch_dag_export.quantization.search import find_layers, form_of, weight_of
from torch_dag_export.quantization.weights import quantize_weights


@dataclass(frozen=True, kw_only=True)
class QuantizableLayer(Candidate):
    """A layer whose weight can be stored as integers; its FLOPs stay.

    Attributes:
        before: Bytes of the weight.
        after: Bytes of integers and scales.
        error: Norm of the rounding error of the weight, divided by the norm of the weight.
    """

    before: int
    after: int
    error: float

    @property
    def detail(self) -> str:
        """The bytes before and after, and the error."""
        return f"{self.before:,} -> {self.after:,} bytes, relative error {self.error:.2g}"


@dataclass(frozen=True, kw_only=True)
class QuantizationReport(CompressionReport):
    """All layers whose weights can be stored as integers, and why others cannot.

    Attributes:
        before: Bytes of all parameters and buffers of the graph.
        after: The same with the weights of all candidates stored as integers.
    """

    candidates: tuple[QuantizableLayer, ...]
    before: int
    after: int

    @property
    def removable_share(self) -> float:
        """The share of the bytes that can be removed."""
        return 1 - self.after / self.before if self.before else 0.0

    def __str__(self) -> str:
        head, *rest = super().__str__().split("\n")
        del head
        sizes = f"{self.before:,} -> {self.after:,} bytes of parameters and buffers"
        return "\n".join([f"{self.algorithm}: {len(self.candidates)} layers, {sizes}", *rest])


class WeightQuantization:
    """`quantize_weights` as an algorithm: nothing is trained."""

    def __init__(self, dag: DagModule, config: WeightQuantizationConfig) -> None:
        """Take a graph apart and find its layers.

        Raises:
            QuantizationError: the graph has no vertex of a name that the settings ignore.
        """
        require_graphs("WeightQuantization", dag)
        self._dag, self._config = dag, config
        self._plain = expanded_copy(dag)
        self._findings = find_layers(self._plain, config.ignore)
        self._report: QuantizationReport | None = None

    def analyze(self) -> QuantizationReport:
        """Return the layers, with the bytes and the rounding error of each.

        Raises:
            InputError: the graph does not remember the sizes of its inputs, without which it has no FLOPs.
        """
        if self._report is None:
            self._report = self._analyzed()
        return self._report

    def _analyzed(self) -> QuantizationReport:
        flops = vertex_facts(self._plain).flops
        layers = tuple(_layer(vertex, flops.get(vertex.name, 0)) for vertex in self._findings.fit)
        tensors = {id(each): each for each in (*self._plain.parameters(), *self._plain.buffers())}
        before = sum(each.numel() * each.element_size() for each in tensors.values())
        saved = {id(weight_of(vertex)): layer for vertex, layer in zip(self._findings.fit, layers, strict=True)}
        left = [Skipped(name, flops.get(name, 0), reason) for name, reason in self._findings.left.items()]
        return QuantizationReport(
            algorithm=NAME, flops=sum(flops.values()), reachable_flops=sum(flops.values()), candidates=layers,
            skipped=left, before=before, after=before - sum(each.before - each.after for each in saved.values()),
        )  # fmt: skip

    def prepare(self) -> DagModule:
        """Return the graph itself: there is nothing to train."""
        return self._dag

    def losses(self, global_step: int) -> Losses:
        """Return the share of the bytes that is left, and no losses."""
        del global_step
        return Losses(torch.tensor(1 - self.analyze().removable_share))

    def finalize(self) -> DagModule:
        """Return the graph with its weights as integers; see `quantize_weights`.

        Raises:
            QuantizationError: no layer can be replaced.
        """
        return quantize_weights(self._dag, ignore=self._config.ignore)


def _layer(vertex: InnerVertex, flops: int) -> QuantizableLayer:
    form, weight = form_of(vertex), weight_of(vertex)
    value = rounded(weight, form.axis)
    return QuantizableLayer(
        name=vertex.name, kind=form.kind, flops=flops, removable=0,
        before=weight.numel() * weight.element_size(), after=value.size, error=value.error,
    )  # fmt: skip
