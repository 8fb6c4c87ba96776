"""The order of nested graphs, modules and tensors in a file, which writing and reading share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeGuard

from torch import Tensor, nn

from torch_dag_core.errors import SerializationError
from torch_dag_core.graph.builtin_ops import TensorHolder
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.registration import Scope
from torch_dag_core.graph.vertex import InnerVertex
from torch_dag_core.serialization.limits import MAX_DEPTH


@dataclass(frozen=True)
class Leaf:
    """A module that is not a graph, with its name in the root graph."""

    name: str
    module: nn.Module


@dataclass(frozen=True)
class TensorPlace:
    """One parameter or buffer: its name in the file and the attribute that holds it."""

    name: str
    vertex: str
    owner: nn.Module
    attribute: str
    is_parameter: bool
    is_persistent: bool

    @property
    def tensor(self) -> Tensor:
        """The tensor that is there now."""
        tensors = self.owner._parameters if self.is_parameter else self.owner._buffers
        tensor: Tensor = tensors[self.attribute]  # type: ignore[assignment]
        return tensor


def is_graph(module: nn.Module) -> TypeGuard[DagModule]:
    """Tell whether a module is stored as a nested graph. Subclasses are not: they may compute something else."""
    return type(module) is DagModule


def graphs(root: DagModule) -> list[DagModule]:
    """List ``root`` and all graphs nested in it, each once and after those inside it; ``root`` is last.

    Raises:
        SerializationError: graphs contain each other, or are nested deeper than `MAX_DEPTH`.
    """
    done: dict[DagModule, None] = {}
    path = [root]
    stack = [_nested(root)]
    while stack:
        child = next(stack[-1], None)
        if child is None:
            done[path.pop()] = None
            stack.pop()
        elif child in path or len(path) > MAX_DEPTH:
            message = f"graphs are nested in one another deeper than {MAX_DEPTH} levels, or without end; flatten some"
            raise SerializationError(message)
        elif child not in done:
            path.append(child)
            stack.append(_nested(child))
    return list(done)


def _nested(graph: DagModule) -> Iterator[DagModule]:
    return iter([v.module for v in graph.inner_vertices if is_graph(v.module)])


def leaves(root: DagModule) -> list[Leaf]:
    """List the modules that are not graphs, each once, in the order in which they are called."""
    seen: set[nn.Module] = {root}
    found: list[Leaf] = []
    stack: list[tuple[str, Iterator[InnerVertex]]] = [("", iter(root.inner_vertices))]
    while stack:
        prefix, vertices = stack[-1]
        vertex = next(vertices, None)
        if vertex is None:
            stack.pop()
            continue
        if vertex.module in seen:
            continue
        seen.add(vertex.module)
        name = prefix + registering_vertex(vertex).name
        if is_graph(vertex.module):
            stack.append((f"{name}.", iter(vertex.module.inner_vertices)))
        else:
            found.append(Leaf(name, vertex.module))
    return found


def registering_vertex(vertex: InnerVertex) -> InnerVertex:
    """Return the vertex under whose name the vertex's module is registered; another one if several share the module."""
    return vertex.dag._records.registrations.first_owner(vertex.module)


def registration_order(graph: DagModule) -> list[InnerVertex]:
    """List the vertices under whose names modules are registered, in the order of ``graph.parameters()``."""
    naming = {vertex.module: registering_vertex(vertex) for vertex in graph.inner_vertices}
    found: list[InnerVertex] = []
    stack: list[Iterator[nn.Module | None]] = [iter(graph._modules.values())]
    while stack:
        for module in stack[-1]:
            if module in naming:
                found.append(naming[module])
            elif isinstance(module, Scope):
                stack.append(iter(module._modules.values()))
                break
        else:
            stack.pop()
    return found


def tensor_places(leaf: Leaf) -> Iterator[TensorPlace]:
    """Iterate over the parameters and buffers of one module, under their keys in the graph's state dict."""
    if isinstance(leaf.module, TensorHolder):
        yield _place_of_holder(leaf, leaf.module)
        return
    for path, module in leaf.module.named_modules():
        prefix = f"{leaf.name}.{path}." if path else f"{leaf.name}."
        for attribute, parameter in module._parameters.items():
            if parameter is not None:
                yield TensorPlace(prefix + attribute, leaf.name, module, attribute, True, True)  # noqa: FBT003
        for attribute, buffer in module._buffers.items():
            if buffer is not None:
                persistent = attribute not in module._non_persistent_buffers_set
                yield TensorPlace(prefix + attribute, leaf.name, module, attribute, False, persistent)  # noqa: FBT003


def _place_of_holder(leaf: Leaf, module: TensorHolder) -> TensorPlace:
    """Return the place of the only tensor of a vertex, which has the name of the vertex."""
    is_parameter = "value" in module._parameters
    is_persistent = is_parameter or "value" not in module._non_persistent_buffers_set
    return TensorPlace(leaf.name, leaf.name, module, "value", is_parameter, is_persistent)
