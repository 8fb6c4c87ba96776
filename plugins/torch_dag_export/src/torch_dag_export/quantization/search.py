"""Which layers of a graph can have their weights stored as integers, and why others cannot."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from torch_dag_core.graph.builtin_ops import FreeParameter
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_export.errors import QuantizationError
from torch_dag_export.quantization.layers import LAYERS, LayerForm
from torch_dag_export.quantization.rounding import is_finite

_OTHER_CLASS = "there is no rule for layers of its class"
_SHARED = "its weight is also used by {}, which keeps it as it is"


@dataclass(frozen=True)
class Findings:
    """The layers of a graph.

    Attributes:
        fit: The vertices whose weights can be stored as integers, in order.
        left: Why the other vertices with a matrix or kernel keep it, by name.
    """

    fit: tuple[InnerVertex, ...]
    left: Mapping[str, str]


def find_layers(dag: DagModule, ignore: Collection[str] = ()) -> Findings:
    """Find the layers of a graph without nested graphs.

    Args:
        dag: The graph.
        ignore: Names of vertices that stay as they are.

    Raises:
        QuantizationError: the graph has no vertex of a name in ``ignore``.
    """
    unknown = [name for name in ignore if name not in dag]
    if unknown:
        message = f"ignore names {unknown[0]!r}, but the graph has no such vertex; `print(dag)` lists them"
        raise QuantizationError(message)
    search = _Search(dag, frozenset(ignore))
    return Findings(tuple(search.fit()), search.left)


@dataclass
class _Search:
    dag: DagModule
    ignore: frozenset[str]
    left: dict[str, str] = field(default_factory=dict)

    def fit(self) -> Iterator[InnerVertex]:
        """Iterate over the vertices that fit; note the reasons for the others."""
        for vertex in self.dag.inner_vertices:
            if any(True for _ in _weights(vertex.module)):
                reason = self._reason(vertex)
                if reason is not None:
                    self.left[vertex.name] = reason
        sharing = self._with_another_reader()
        for vertex in self.dag.inner_vertices:
            if vertex.name in sharing:
                self.left[vertex.name] = _SHARED.format(sharing[vertex.name])
            elif vertex.name not in self.left and type(vertex.module) in LAYERS:
                yield vertex

    def _reason(self, vertex: InnerVertex) -> str | None:
        """Return why a vertex keeps its weight, looked at alone."""
        form = LAYERS.get(type(vertex.module))
        if vertex.name in self.ignore:
            return "ignore names it"
        if form is None:
            return _OTHER_CLASS
        return next((why for why, holds in form.unless.items() if holds(vertex.module)), _bad_weight(weight_of(vertex)))

    def _with_another_reader(self) -> Mapping[str, str]:
        """Return the vertices whose weight is also read by one that keeps it, each with the name of that one."""
        keeping: dict[int, str] = {}
        for vertex in self.dag.inner_vertices:
            form = LAYERS.get(type(vertex.module))
            for weight in vertex.module.parameters():
                if form is None or vertex.name in self.left or weight is not weight_of(vertex):
                    keeping.setdefault(id(weight), vertex.name)
        return {
            vertex.name: keeping[id(weight_of(vertex))]
            for vertex in self.dag.inner_vertices
            if type(vertex.module) in LAYERS and vertex.name not in self.left
            if id(weight_of(vertex)) in keeping
        }


def form_of(vertex: InnerVertex) -> LayerForm:
    """Return the form of a layer that fits."""
    return LAYERS[type(vertex.module)]


def weight_of(vertex: InnerVertex) -> Tensor:
    """Return the weight of a layer of a class in `LAYERS`."""
    module: Any = vertex.module
    weight: Tensor = module.weight
    return weight


def _weights(module: nn.Module) -> Iterator[Tensor]:
    """Iterate over matrices and kernels; a `FreeParameter` computes nothing with its tensor."""
    if type(module) is not FreeParameter:
        yield from (parameter for parameter in module.parameters() if parameter.dim() > 1)


def _bad_weight(weight: Tensor) -> str | None:
    if type(weight) is not nn.Parameter:
        return f"its weight is a {type(weight).__name__}, not a plain parameter"
    if weight.is_meta or not weight.numel():
        return "its weight has no data"
    if not weight.is_floating_point():
        return f"its weight is of {weight.dtype}"
    return None if is_finite(weight) else "its weight has infinities or NaN"
