"""The search for layers that can be factored, with their sizes, and why others cannot."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from torch_dag_core.analysis.vertex_facts import VertexFacts
from torch_dag_core.graph.builtin_ops import FreeParameter
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.vertex import InnerVertex, Vertex
from torch_dag_core.plugins.loading import default_registry
from torch_dag_llrc.config import LowRankConfig
from torch_dag_llrc.schemes import LayerSizes

Shape = tuple[int, ...]


def linear_sizes(module: nn.Linear, given: Shape, returned: Shape) -> LayerSizes:
    """Return the sizes of a linear layer; all dimensions but the last count as rows."""
    del given
    rows = math.prod(returned[:-1])
    return LayerSizes(
        inputs=module.in_features, outputs=module.out_features, kernel=(1, 1), pixels_in=rows, pixels_between=rows,
        pixels_out=rows, biased_outputs=_biased(module),
    )  # fmt: skip


def convolution_sizes(module: nn.Conv2d, given: Shape, returned: Shape) -> LayerSizes:
    """Return the sizes of a 2-D convolution, with or without a batch dimension."""
    batch = math.prod(given[:-3])
    height, width = module.kernel_size
    return LayerSizes(
        inputs=module.in_channels, outputs=module.out_channels, kernel=(height, width),
        pixels_in=batch * given[-2] * given[-1], pixels_between=batch * returned[-2] * given[-1],
        pixels_out=batch * returned[-2] * returned[-1], biased_outputs=_biased(module),
    )  # fmt: skip


def _biased(module: nn.Linear | nn.Conv2d) -> int:
    return 0 if module.bias is None else module.weight.shape[0]


_SIZES: Mapping[type[nn.Module], Callable[[Any, Shape, Shape], LayerSizes]] = {
    nn.Linear: linear_sizes,
    nn.Conv2d: convolution_sizes,
}


class LayerSearch:
    """Checks which vertices with a weight matrix or kernel can be factored. O(n)."""

    def __init__(self, dag: DagModule, facts: VertexFacts, config: LowRankConfig) -> None:
        needed = [vertex for vertex in dag.inner_vertices if vertex.name in facts.flops]
        self.learned = [vertex for vertex in needed if _has_matrix(vertex.module)]
        self._shapes = facts.shapes
        self._config = config
        self._registry = default_registry()
        self._uses = Counter(id(each) for vertex in dag.inner_vertices for each in vertex.module.parameters())
        self._with_one_before = _reached(dag.inner_vertices, self.learned, lambda vertex: vertex.predecessors)
        self._with_one_after = _reached(dag.inner_vertices[::-1], self.learned, lambda vertex: vertex.successors)

    def reason_to_skip(self, vertex: InnerVertex) -> str | None:
        """Return why a vertex cannot be factored, or None."""
        return next((reason for reason, holds in _REASONS.items() if holds(self, vertex)), None)

    def sizes(self, vertex: InnerVertex) -> LayerSizes:
        """Return the sizes of a layer that can be factored."""
        measure = _SIZES[type(vertex.module)]
        return measure(vertex.module, self._shapes[vertex.predecessors[0].name], self._shapes[vertex.name])

    def _is_protected(self, vertex: InnerVertex) -> bool:
        return type(vertex.module) in self._config.ignore_classes

    def _is_grouped(self, vertex: InnerVertex) -> bool:
        return getattr(vertex.module, "groups", 1) != 1

    def _is_composite(self, vertex: InnerVertex) -> bool:
        spec = self._registry.for_module(vertex.module)
        return spec is not None and spec.expand is not None

    def _is_unknown(self, vertex: InnerVertex) -> bool:
        return type(vertex.module) not in _SIZES

    def _is_tied(self, vertex: InnerVertex) -> bool:
        return any(self._uses[id(parameter)] > 1 for parameter in vertex.module.parameters())

    def _is_unwanted_stem(self, vertex: InnerVertex) -> bool:
        return not self._config.prune_stem and vertex not in self._with_one_before

    def _is_unwanted_head(self, vertex: InnerVertex) -> bool:
        return not self._config.prune_head and vertex not in self._with_one_after


_REASONS: Mapping[str, Callable[[LayerSearch, InnerVertex], bool]] = {
    "its class is in ignore_classes": LayerSearch._is_protected,
    "it has several groups": LayerSearch._is_grouped,
    "it is a composite op, and those are not taken apart yet": LayerSearch._is_composite,
    "only Linear and Conv2d can be factored": LayerSearch._is_unknown,
    "other vertices use its weights too": LayerSearch._is_tied,
    "it is the stem, and prune_stem is off": LayerSearch._is_unwanted_stem,
    "it is the head, and prune_head is off": LayerSearch._is_unwanted_head,
}
"""Reasons not to factor a layer; the first that holds is reported."""


def _has_matrix(module: nn.Module) -> bool:
    """Return whether a module computes with a matrix or kernel; a `FreeParameter` only returns its tensor."""
    return type(module) is not FreeParameter and any(parameter.dim() > 1 for parameter in module.parameters())


def _reached(
    order: Iterable[InnerVertex], learned: Iterable[InnerVertex], neighbours: Callable[[Vertex], Iterable[Vertex]]
) -> set[Vertex]:
    """Return the vertices that have a learned vertex on some path of ``neighbours``, visiting them in ``order``."""
    sources = set(learned)
    found: set[Vertex] = set()
    for vertex in order:
        if any(near in found or near in sources for near in neighbours(vertex)):
            found.add(vertex)
    return found
