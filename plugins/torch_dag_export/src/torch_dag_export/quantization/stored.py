"""The vertices that hold a weight as integers, shared by all layers that read the same parameter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torch_dag_core.graph.builtin_ops import Constant, FreeParameter
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_core.ops.arithmetic import Cast, Mul
from torch_dag_export.quantization.rounding import Rounded


@dataclass
class StoredWeight:
    """A rounded weight in a graph.

    Attributes:
        folder: Dotted name that the names of its vertices begin with: that of the first layer that reads it.
        dtype: Of the weight before it was rounded.
        integers: The vertex of the integers.
        scales: The vertex of the scales.
    """

    folder: str
    dtype: torch.dtype
    integers: InnerVertex
    scales: InnerVertex
    _restored: InnerVertex | None = None

    @classmethod
    def add(cls, dag: DagModule, folder: str, dtype: torch.dtype, value: Rounded) -> StoredWeight:
        """Add the vertices that hold the integers and the scales."""
        integers = held(dag, f"{folder}.weight_int8", Constant, value.integers)
        return cls(folder, dtype, integers, held(dag, f"{folder}.weight_scale", Constant, value.scales))

    def restored(self, dag: DagModule) -> InnerVertex:
        """Return the vertex of the weight itself, integers times scales, which is added at first use."""
        if self._restored is None:
            name = f"{self.folder}.weight"
            cast = dag.add_vertex(dag.unique_name(f"{name}_cast"), Cast(self.dtype), [self.integers])
            self._restored = dag.add_vertex(dag.unique_name(name), Mul(), [cast, self.scales])
        return self._restored


def held(dag: DagModule, name: str, kind: type[Constant | FreeParameter], value: Tensor) -> InnerVertex:
    """Add a vertex that holds a tensor, under this name or one like it."""
    return dag.add_vertex(dag.unique_name(name), kind(tuple(value.shape), value.dtype, value=value))
