"""A graph run for shapes and types alone: on tensors without data."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from torch_dag_core.errors import InputError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.interpret import walk
from torch_dag_core.graph.vertex import InnerVertex, Vertex
from torch_dag_core.ops.tensors import Constant
from torch_dag_core.plugins.calling import errors_attributed_to
from torch_dag_core.plugins.registry import Registry
from torch_dag_core.tracing.execution import META, WithoutData, run_on_zeros


@dataclass(frozen=True)
class ShapeRun:
    """Calls the vertices of graphs in evaluation without data, as `walk` wants them called. Mutates no graph.

    An op that can be saved is called once for each configuration, form of its own tensors and form of its operands:
    nothing else can tell two calls apart. Modules must not be edited between calls.
    """

    registry: Registry
    _identities: dict[nn.Module, Hashable] = field(default_factory=dict, init=False, repr=False)
    _known: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def values(self, dag: DagModule, inputs: Sequence[Tensor]) -> Mapping[Vertex, Any]:
        """Return the value of every vertex, those that only training needs included.

        Raises:
            InputError: a vertex does not run at these sizes.
        """
        found: dict[Vertex, Any] = dict(zip(dag.input_vertices, inputs, strict=True))
        for vertex in dag.inner_vertices:
            found[vertex] = self(vertex, tuple(found[predecessor] for predecessor in vertex.predecessors))
        return found

    def __call__(self, vertex: InnerVertex, operands: tuple[Any, ...]) -> Any:
        """Return what one vertex makes of operands without data.

        Raises:
            InputError: it does not run at these sizes.
        """
        if isinstance(vertex.module, DagModule):
            *_, (_, value) = walk(vertex.module, operands, self, training=False)
            return value
        if isinstance(vertex.module, Constant) and vertex.module.value.dtype == torch.bool:
            return vertex.module.value  # a mask: how many elements it selects is in its values
        identity = self._identity(vertex.module)
        try:
            return self._called(vertex.module, identity, operands)
        except Exception as error:
            message = f"vertex {vertex.name!r} cannot be run without data at these sizes: {error}"
            raise InputError(message) from error

    def _called(self, module: nn.Module, identity: Hashable, operands: tuple[Any, ...]) -> Any:
        form = _form(operands)
        if (identity, form) not in self._known:
            twin = _deep_twin(module) if identity is module or module._modules else _plain_twin(module)
            try:
                with torch.no_grad(), WithoutData():
                    self._known[identity, form] = twin(*operands)
            except RuntimeError:
                return self._decided_by_values(module, operands)
        return self._known[identity, form]

    def _decided_by_values(self, module: nn.Module, operands: tuple[Any, ...]) -> Any:
        """Call a module on its own buffers and on zeros for everything else."""
        self._identities[module] = module
        with torch.no_grad():
            value = run_on_zeros(_deep_twin(module, module.parameters()), operands, {})
        self._known[module, _form(operands)] = value
        return value

    def _identity(self, module: nn.Module) -> Hashable:
        """Return what decides the form of a module's results: the module itself where that is not known."""
        if module not in self._identities:
            spec = self.registry.for_module(module)
            identity: Hashable = module
            if spec is not None and spec.codec is not None:
                with errors_attributed_to(spec.owner, f"the codec of {spec.key!r}"):
                    identity = spec.key, repr(spec.codec.config(module)), _own_forms(module)
            self._identities[module] = identity
        return self._identities[module]


def _deep_twin(module: nn.Module, tensors: Iterable[Tensor] | None = None) -> nn.Module:
    """Return a copy in evaluation mode in which these tensors, by default all, have no data."""
    tensors = (*module.parameters(), *module.buffers()) if tensors is None else tensors
    return copy.deepcopy(module, {id(tensor): _blank(tensor) for tensor in tensors}).eval()


def _plain_twin(module: nn.Module) -> nn.Module:
    """Return the same for a module that is nothing but constants and tensors; much faster."""
    twin = copy.copy(module)
    tensors = {kind: vars(module)[kind].items() for kind in ("_parameters", "_buffers")}
    blank = {kind: {name: _blank(tensor) for name, tensor in items} for kind, items in tensors.items()}
    vars(twin).update(blank, training=False)
    return twin


def _blank(tensor: Any) -> Any:
    return None if tensor is None else torch.empty_like(tensor, device=META)


def _own_forms(module: nn.Module) -> Hashable:
    """Return the forms of a module's tensors by their names."""
    owned = (tensors for part in module.modules() for tensors in (part._parameters, part._buffers))
    return tuple((name, _form(_blank(tensor))) for tensors in owned for name, tensor in tensors.items())


def _form(value: Any) -> Hashable:
    """Return what of nested values can decide a form: shape and type of a tensor, all of one that has data."""
    if isinstance(value, Tensor):
        return (value.shape, value.dtype) if value.is_meta else id(value)
    return tuple(map(_form, value)) if isinstance(value, (tuple, list)) else repr(value)
