"""Running a graph on tensors without data, to find the shapes and dtypes of its values."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_core.errors import InputError
from torch_dag_core.graph.builtin_ops import Constant
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.interpret import walk
from torch_dag_core.graph.vertex import InnerVertex, Vertex
from torch_dag_core.plugins.calling import errors_attributed_to
from torch_dag_core.plugins.registry import Registry
from torch_dag_core.tracing.execution import META, WithoutData, run_on_zeros


@dataclass(frozen=True)
class ShapeRun:
    """Calls vertices in evaluation mode without data; an instance can be passed to `walk`. Changes no graph.

    The results of an op that can be saved depend only on its configuration, on the shapes and dtypes of its own
    tensors, and on those of its operands. They are cached under these, so modules must not be edited between calls.
    """

    registry: Registry
    _identities: dict[nn.Module, Hashable] = field(default_factory=dict, init=False, repr=False)
    _known: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def values(self, dag: DagModule, inputs: Sequence[Tensor]) -> Mapping[Vertex, Any]:
        """Return the value of every vertex, including those that run in training only.

        Raises:
            InputError: a vertex does not run at these sizes.
        """
        found: dict[Vertex, Any] = dict(zip(dag.input_vertices, inputs, strict=True))
        for vertex in dag.inner_vertices:
            found[vertex] = self(vertex, tuple(found[predecessor] for predecessor in vertex.predecessors))
        return found

    def __call__(self, vertex: InnerVertex, operands: tuple[Any, ...]) -> Any:
        """Return the result of one vertex for operands without data.

        Raises:
            InputError: the vertex does not run at these sizes.
        """
        if isinstance(vertex.module, DagModule):
            *_, (_, value) = walk(vertex.module, operands, self, training=False)
            return value
        if isinstance(vertex.module, Constant) and vertex.module.value.dtype == torch.bool:
            return vertex.module.value  # a mask keeps its data, which decides how many elements it selects
        identity = self._identity(vertex.module)
        try:
            return self._call(vertex.module, identity, operands)
        except Exception as error:
            message = f"vertex {vertex.name!r} cannot be run without data at these sizes: {error}"
            raise InputError(message) from error

    def _call(self, module: nn.Module, identity: Hashable, operands: tuple[Any, ...]) -> Any:
        form = _form(operands)
        if (identity, form) not in self._known:
            twin = _deep_twin(module) if identity is module or module._modules else _plain_twin(module)
            try:
                with torch.no_grad(), WithoutData():
                    self._known[identity, form] = twin(*operands)
            except RuntimeError:
                return self._call_with_data(module, operands)
        return self._known[identity, form]

    def _call_with_data(self, module: nn.Module, operands: tuple[Any, ...]) -> Any:
        """Call a module that needs data: with its own buffers, and zeros for parameters and operands."""
        self._identities[module] = module
        with torch.no_grad():
            value = run_on_zeros(_deep_twin(module, module.parameters()), operands, {})
        self._known[module, _form(operands)] = value
        return value

    def _identity(self, module: nn.Module) -> Hashable:
        """Return a key that is equal for modules with results of equal shapes; the module itself without a codec."""
        if module not in self._identities:
            spec = self.registry.for_module(module)
            identity: Hashable = module
            if spec is not None and spec.codec is not None:
                with errors_attributed_to(spec.owner, f"the codec of {spec.key!r}"):
                    identity = spec.key, repr(spec.codec.config(module)), _own_forms(module)
            self._identities[module] = identity
        return self._identities[module]


def _deep_twin(module: nn.Module, tensors: Iterable[Tensor] | None = None) -> nn.Module:
    """Return a deep copy in evaluation mode in which the given tensors, by default all, have no data."""
    tensors = (*module.parameters(), *module.buffers()) if tensors is None else tensors
    return copy.deepcopy(module, {id(tensor): _blank(tensor) for tensor in tensors}).eval()


def _plain_twin(module: nn.Module) -> nn.Module:
    """Return a shallow copy without data of a module that has no submodules; much faster than `_deep_twin`."""
    twin = copy.copy(module)
    tensors = {kind: vars(module)[kind].items() for kind in ("_parameters", "_buffers")}
    blank = {kind: {name: _blank(tensor) for name, tensor in items} for kind, items in tensors.items()}
    vars(twin).update(blank, training=False)
    return twin


def _blank(tensor: Any) -> Any:
    return None if tensor is None else torch.empty_like(tensor, device=META)


def _own_forms(module: nn.Module) -> Hashable:
    """Return the shapes and dtypes of a module's own tensors, with their names."""
    owned = (tensors for part in module.modules() for tensors in (part._parameters, part._buffers))
    return tuple(
        (name, None if tensor is None else (tensor.shape, tensor.dtype))
        for tensors in owned
        for name, tensor in tensors.items()
    )


def _form(value: Any) -> Hashable:
    """Return a cache key for an operand: shape and dtype of a tensor without data, identity of one with data."""
    if isinstance(value, Tensor):
        return (value.shape, value.dtype) if value.is_meta else id(value)
    return tuple(map(_form, value)) if isinstance(value, (tuple, list)) else repr(value)
