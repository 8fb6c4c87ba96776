"""Layers whose weight can be stored as integers, and the ops of the core that then compute them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from torch_dag_core.graph.builtin_ops import FreeParameter
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.vertex import InnerVertex, Vertex
from torch_dag_core.ops.arithmetic import Cast, Mul
from torch_dag_core.ops.contraction import Convolution, EmbeddingFunction, LinearFunction, TransposedConvolution
from torch_dag_export.quantization.stored import StoredWeight, held

Build = Callable[["Layer"], InnerVertex]


@dataclass(frozen=True)
class Layer:
    """A vertex that is about to be replaced.

    Attributes:
        dag: The graph.
        vertex: The vertex.
        name: The name that it had, which is free now: a folder for the vertices that replace it.
        weight: Its weight as integers.
        biases: The vertices of biases so far, by the module that they come from.
    """

    dag: DagModule
    vertex: InnerVertex
    name: str
    weight: StoredWeight
    biases: dict[nn.Module, InnerVertex]

    @property
    def module(self) -> Any:
        """The layer itself."""
        return self.vertex.module

    def add(self, what: str, module: nn.Module, operands: Sequence[Vertex]) -> InnerVertex:
        """Add a vertex to the folder of the layer."""
        return self.dag.add_vertex(self.dag.unique_name(f"{self.name}.{what}"), module, operands)

    def bias(self) -> list[InnerVertex]:
        """Return the vertex of the bias, or nothing if the layer has none."""
        if self.module.bias is None:
            return []
        if self.module not in self.biases:
            self.biases[self.module] = held(self.dag, f"{self.name}.bias", FreeParameter, self.module.bias)
        return [self.biases[self.module]]


@dataclass(frozen=True)
class LayerForm:
    """How a layer is computed from a weight that is stored as integers.

    Attributes:
        kind: Of the layer, in a word: for reports, and in the name of the vertex that replaces it.
        axis: The dimension of the weight whose indices have a scale each.
        build: Adds the vertices that compute what the layer does, and returns the one with the result.
        unless: Why a layer of this class has to stay as it is, by the reason.
    """

    kind: str
    axis: int
    build: Build
    unless: Mapping[str, Callable[[Any], bool]]


def _with_operands(kind: str, op: Callable[[Any], nn.Module]) -> Build:
    """Return how to build a layer as an op that takes the input, the restored weight, and the bias."""

    def build(layer: Layer) -> InnerVertex:
        operands = [*layer.vertex.predecessors, layer.weight.restored(layer.dag), *layer.bias()]
        return layer.add(kind, op(layer.module), operands)

    return build


def _table(layer: Layer) -> InnerVertex:
    """Look rows of integers and their scales up, so that only the rows that are read are restored."""
    (index,), weight, lookup = layer.vertex.predecessors, layer.weight, EmbeddingFunction(layer.module.padding_idx)
    integers = layer.add("rows_int8", lookup, [index, weight.integers])
    scales = layer.add("rows_scale", copy.deepcopy(lookup), [index, weight.scales])
    return layer.add("embedding", Mul(), [layer.add("rows_cast", Cast(weight.dtype), [integers]), scales])


def _convolution(module: Any) -> nn.Module:
    return Convolution(module.stride, module.padding, module.dilation, module.groups)


def _transposed(module: Any) -> nn.Module:
    return TransposedConvolution(module.stride, module.padding, module.output_padding, module.groups, module.dilation)


_PADDED = {"it pads with something other than zeros": lambda module: module.padding_mode != "zeros"}
_RENORMED = {
    "it changes its table when it is called": lambda module: module.max_norm is not None,
    "it has sparse gradients": lambda module: module.sparse,
}


def _form(kind: str, axis: int, op: Callable[[Any], nn.Module], unless: Mapping[str, Any]) -> LayerForm:
    return LayerForm(kind, axis, _with_operands(kind, op), unless)


_CONVOLUTION = _form("convolution", 0, _convolution, _PADDED)
_TRANSPOSED = _form("transposed_convolution", 1, _transposed, _PADDED)

LAYERS: Mapping[type[nn.Module], LayerForm] = {
    nn.Linear: _form("linear", 0, lambda _: LinearFunction(), {}),
    nn.Conv1d: _CONVOLUTION,
    nn.Conv2d: _CONVOLUTION,
    nn.Conv3d: _CONVOLUTION,
    nn.ConvTranspose1d: _TRANSPOSED,
    nn.ConvTranspose2d: _TRANSPOSED,
    nn.ConvTranspose3d: _TRANSPOSED,
    nn.Embedding: LayerForm("embedding", 0, _table, _RENORMED),
}
"""The forms by the exact class of the layer."""
