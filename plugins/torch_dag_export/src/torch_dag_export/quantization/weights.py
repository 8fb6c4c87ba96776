"""`quantize_weights`: layers replaced by ops that read 8-bit integers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from torch_dag_core.graph.checkpoint_keys import MOVED
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.entry_checks import require_graphs
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_export.errors import QuantizationError
from torch_dag_export.quantization.expansion import expanded_copy
from torch_dag_export.quantization.layers import Layer
from torch_dag_export.quantization.rounding import rounded
from torch_dag_export.quantization.search import find_layers, form_of
from torch_dag_export.quantization.stored import StoredWeight


def quantize_weights(dag: DagModule, *, ignore: Collection[str] = ()) -> DagModule:
    """Return a copy whose linear layers, convolutions and embeddings store their weights as 8-bit integers.

    Each weight becomes a constant of int8 and one of scales, one scale for each output channel (for each row of an
    embedding), and two ops that multiply them; so the copy consists of ops of the core, is saved in about a quarter of
    the bytes, and loads without this package. It computes in the precision of the original: only storage is smaller.
    The integers cannot be trained; biases, normalisations and other parameters can. State dicts have ``weight_int8``
    and ``weight_scale`` in place of ``weight``. Layers of other classes stay as they are; `WeightQuantization.analyze`
    names them.

    Args:
        dag: The graph; nested graphs and composite ops are inlined in the copy.
        ignore: Names of vertices that stay as they are.

    Raises:
        QuantizationError: no layer can be replaced, or the graph has no vertex of a name in ``ignore``.
        InputError: the graph has a composite op and does not remember the sizes of its inputs.
    """
    require_graphs("quantize_weights()", dag)
    copy = expanded_copy(dag)
    findings = find_layers(copy, ignore)
    if not findings.fit:
        reasons = "; ".join(f"{name!r}: {reason}" for name, reason in findings.left.items())
        message = f"the graph has no layer whose weight can be stored as integers{f' ({reasons})' if reasons else ''}"
        raise QuantizationError(message)
    replacement = _Replacement(copy)
    for vertex in findings.fit:
        replacement.replace(vertex)
    return copy


@dataclass
class _Replacement:
    """The edits of one graph, with what was added for parameters and modules that several vertices use."""

    dag: DagModule
    stored: dict[tuple[int, int], StoredWeight] = field(default_factory=dict)
    biases: dict[nn.Module, InnerVertex] = field(default_factory=dict)

    def replace(self, vertex: InnerVertex) -> None:
        """Put the vertices of a layer's form in the place of a vertex."""
        form, name = form_of(vertex), vertex.name
        self.dag.rename(vertex, self.dag.unique_name(f"{name}_float"))
        self.dag.provenance.get(MOVED, {}).pop(name, None)
        weight = self._weight(vertex, name, form.axis)
        result = form.build(Layer(self.dag, vertex, name, weight, self.biases))
        self.dag.replace_uses(vertex, result)
        self.dag.remove_unused(vertex)

    def _weight(self, vertex: InnerVertex, folder: str, axis: int) -> StoredWeight:
        parameter: Any = vertex.module.weight
        key = id(parameter), axis
        if key not in self.stored:
            self.stored[key] = StoredWeight.add(self.dag, folder, parameter.dtype, rounded(parameter, axis))
        return self.stored[key]
