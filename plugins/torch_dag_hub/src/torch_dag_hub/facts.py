"""What can be measured of a graph, or was measured when it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from torch_dag_core.analysis.vertex_facts import VertexFacts, flattened, vertex_facts
from torch_dag_core.cli.saved_file import needed_distributions
from torch_dag_core.errors import InputError
from torch_dag_core.graph.conditions import hold
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.inputs import InputSpec, TensorSpec
from torch_dag_core.graph.values import Slot
from torch_dag_core.graph.vertex import InnerVertex, Vertex


@dataclass(frozen=True)
class Head:
    """The output of a classifier.

    Attributes:
        classes: Length of the vector that each sample gets.
        features: How many features the layer reads that gives it; None if that is no linear layer.
        layer: Name of this layer, None if it is no linear layer.
    """

    classes: int
    features: int | None = None
    layer: str | None = None


@dataclass(frozen=True)
class GraphFacts:
    """What is measured of a graph when it is shared.

    Attributes:
        model: Class of the model that the graph was made from; empty if that is unknown.
        flops: FLOPs of one sample at the sizes of the trace, 2 for a multiply-accumulate; None without such sizes.
        parameters: Elements of the parameters.
        nbytes: Bytes of the parameters and buffers.
        spec: The inputs, with what their sizes have to fulfil.
        head: The output, if it is one vector for each sample.
        needs: Distributions whose ops the graph contains, apart from torch-dag-core.
        provenance: What its makers noted.
    """

    model: str
    flops: int | None
    parameters: int
    nbytes: int
    spec: InputSpec
    head: Head | None
    needs: Sequence[str]
    provenance: Mapping[str, Any]

    @classmethod
    def of(cls, dag: DagModule) -> Self:
        """Measure a graph. Runs it without data; changes nothing."""
        flat = flattened(dag)
        try:
            facts = vertex_facts(flat)
        except InputError:
            facts = None
        tensors = {id(tensor): tensor for tensor in (*dag.parameters(), *dag.buffers())}.values()
        return cls(
            model=str(dag.provenance.get("model", "")),
            flops=None if facts is None else sum(facts.flops.values()),
            parameters=sum(parameter.numel() for parameter in dag.parameters()),
            nbytes=sum(tensor.nbytes for tensor in tensors),
            spec=dag.input_spec,
            head=None if facts is None else _head(flat, facts),
            needs=needed_distributions(dag),
            provenance=dag.provenance,
        )

    @property
    def image(self) -> TensorSpec | None:
        """The input, if it is one batch of images."""
        if len(self.spec.tensors) != 1:
            return None
        (only,) = self.spec.tensors
        is_image = len(only.shape) == 4 and only.dtype.is_floating_point and only.example_shape is not None
        return only if is_image else None

    def accepts_image(self, size: Any) -> bool:
        """Return whether the graph takes images of this size: channels, height, width."""
        image = self.image
        if image is None or not isinstance(size, (list, tuple)) or [type(each) for each in size] != [int] * 3:
            return False
        assert image.example_shape is not None
        shape = torch.Size((image.example_shape[0], *size))
        is_fitting = all(fixed in (None, given) for fixed, given in zip(image.shape[1:], size, strict=True))
        return is_fitting and hold(self.spec.assumptions, [shape])


def _head(dag: DagModule, facts: VertexFacts) -> Head | None:
    if not isinstance(dag.output_structure, Slot):
        return None
    vertex = dag.outputs[0]
    shape = facts.shapes.get(vertex.name, ())
    if len(shape) != 2:
        return None
    name, linear = _linear_before(vertex) or (None, None)
    return Head(shape[1], None if linear is None else linear.in_features, name)


def _linear_before(vertex: Vertex) -> tuple[str, nn.Linear] | None:
    """Return name and module of the linear layer that gives a value, perhaps through vertices without parameters."""
    while isinstance(vertex, InnerVertex) and len(vertex.predecessors) == 1:
        if next(vertex.module.parameters(), None) is not None:
            return (vertex.name, vertex.module) if isinstance(vertex.module, nn.Linear) else None
        vertex = vertex.predecessors[0]
    return None
