"""The sizes of every tensor of a graph, found by running it without data."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.vertex import InnerVertex, Vertex
from torch_dag_core.plugins.registry import Registry
from torch_dag_core.tracing.execution import run_on_zeros
from torch_dag_pruning.errors import AnalysisError

#: Ops whose result is as large as their largest operand and of its type: these need not be run. Torch takes
#: milliseconds for some of them.
_LIKE_OPERANDS = frozenset(
    f"core.{name}"
    for name in (
        "add", "sub", "mul", "div", "maximum", "minimum", "neg", "abs", "exp", "log", "sqrt", "rsqrt", "reciprocal",
        "square", "sin", "cos", "erf", "clamp", "detach", "contiguous", "identity", "re_lu", "re_lu6", "leaky_re_lu",
        "elu", "selu", "celu", "gelu", "si_lu", "mish", "sigmoid", "tanh", "hardswish", "hardsigmoid", "hardtanh",
        "softplus", "softsign", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout",
        "functional_dropout", "drop_path", "stochastic_depth", "softmax", "log_softmax", "training_switch", "roll",
        "flip",
    )
) | frozenset(
    f"core.{name}"
    for name in (
        "batch_norm1d", "batch_norm2d", "batch_norm3d", "layer_norm", "rms_norm", "group_norm", "instance_norm1d",
        "instance_norm2d", "instance_norm3d", "layer_norm_function", "rms_norm_function", "group_norm_function",
        "batch_norm_function", "frozen_batch_norm", "normalize",
    )
)  # fmt: skip


@dataclass
class ShapeRun:
    """One run of a graph on tensors without data; equal calls of the core's own ops are made once.

    Attributes:
        values: The tensor, or nested tuples of tensors, of each vertex; only sizes and types mean anything.
    """

    dag: DagModule
    registry: Registry
    values: dict[Vertex, Any] = field(default_factory=dict)
    _known: dict[Any, Any] = field(default_factory=dict)

    def run(self, inputs: Sequence[Tensor]) -> dict[Vertex, Any]:
        """Return the value of every vertex.

        Raises:
            AnalysisError: a vertex does not run without data, or not at these sizes.
        """
        self.values = dict(zip(self.dag.input_vertices, inputs, strict=True))
        with torch.no_grad():
            for vertex in self.dag.inner_vertices:
                self.values[vertex] = self._value(vertex)
        return self.values

    def _value(self, vertex: InnerVertex) -> Any:
        operands = [self.values[predecessor] for predecessor in vertex.predecessors]
        spec = self.registry.for_module(vertex.module)
        if spec is not None and spec.key in _LIKE_OPERANDS and _is_broadcast(operands):
            return max(operands, key=Tensor.numel)
        if spec is not None and spec.key in _FORMULAS:
            return blank(_FORMULAS[spec.key](vertex.module, operands), operands[0].dtype)
        key = self._key(vertex.module, operands)
        if key is None:
            return self._called(vertex, operands)
        if key not in self._known:
            self._known[key] = self._called(vertex, operands)
        return self._known[key]

    def _key(self, module: nn.Module, operands: Sequence[Any]) -> Any:
        """Return what decides the sizes of the result, or None where that is not known."""
        spec = self.registry.for_module(module)
        if spec is None or not spec.key.startswith("core."):
            return None
        tensors = tuple((name, None if t is None else t.shape) for name, t in module._parameters.items())
        return spec.key, module.extra_repr(), tensors, tuple(_description(operand) for operand in operands)

    def _called(self, vertex: InnerVertex, operands: Sequence[Any]) -> Any:
        module = without_data(vertex.module)
        try:
            return module(*operands)
        except RuntimeError:
            # A module that decides on values: kept as one vertex because of that.
            return self._decided_on_zeros(vertex, module, operands)
        except (ValueError, TypeError) as error:
            raise _not_run(vertex, error) from error

    def _decided_on_zeros(self, vertex: InnerVertex, module: nn.Module, operands: Sequence[Any]) -> Any:
        try:
            return run_on_zeros(module, operands, {})
        except (RuntimeError, ValueError, TypeError) as error:
            raise _not_run(vertex, error) from error


def _not_run(vertex: InnerVertex, error: Exception) -> AnalysisError:
    return AnalysisError(f"vertex {vertex.name!r} cannot be run without data at the analysed sizes: {error}")


def _linear_shape(module: Any, operands: Sequence[Tensor]) -> Sequence[int]:
    return (*operands[0].shape[:-1], module.weight.shape[0])


def _cat_shape(module: Any, operands: Sequence[Tensor]) -> Sequence[int]:
    shape = list(max(operands, key=Tensor.dim).shape)
    shape[module.dim] = sum(operand.shape[module.dim] for operand in operands if operand.dim() == len(shape))
    return shape


#: Sizes of results that torch takes long to find.
_FORMULAS: Mapping[str, Any] = {"core.linear": _linear_shape, "core.cat": _cat_shape}


def _is_broadcast(operands: Sequence[Any]) -> bool:
    """Tell whether the result of an elementwise op has the size and the type of its largest operand."""
    largest = max(operands, key=Tensor.numel)
    return largest.is_floating_point() and all(
        operand.dtype == largest.dtype
        and operand.dim() <= largest.dim()
        and all(n in (1, m) for n, m in zip(operand.shape[::-1], largest.shape[::-1], strict=False))
        for operand in operands
    )


def _description(operand: Any) -> Any:
    if isinstance(operand, Tensor):
        return operand.shape, operand.dtype
    return tuple(_description(item) for item in operand)


def without_data(module: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode whose tensors have no data; fast for modules without parts."""
    tensors = (*module.parameters(), *module.buffers())
    blank = {id(tensor): torch.empty_like(tensor, device="meta") for tensor in tensors}
    if module._modules or _is_recurrent(module):
        return copy.deepcopy(module, dict(blank)).eval()
    twin = type(module).__new__(type(module))
    twin.__dict__ = dict(module.__dict__)
    for kind in ("_parameters", "_buffers"):
        twin.__dict__[kind] = {name: blank.get(id(tensor)) for name, tensor in getattr(module, kind).items()}
    twin.training = False
    return twin


def _is_recurrent(module: nn.Module) -> bool:
    """Tell whether a module keeps its parameters in a list as well."""
    return isinstance(module, nn.RNNBase)


def blank(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Return a tensor without data."""
    return torch.empty(tuple(shape), dtype=dtype, device="meta")
