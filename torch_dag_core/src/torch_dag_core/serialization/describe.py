"""A graph as a JSON document.

==============  ==========================================================================================
``format``      version of all that follows
``training``    mode of the graph
``ops``         key: version, owner and owner's version of each op used
``modules``     op key and constants, or a nested graph; ``mode`` lists submodules in the other mode
``graph``       inputs, vertices (name, module, operands), registration, outputs, input spec, provenance
``tensors``     type of each parameter and buffer, and where it differs from the usual: ``requires_grad``,
                ``persistent``, ``layout``, ``alias`` and ``same``
==============  ==========================================================================================

Each module is listed once, and each nested graph after everything that it contains, so that a reader can build them
in order and nothing can refer to itself. Vertices are in topological order; operands are positions in the list of
inputs followed by vertices. ``outputs`` has a second entry if the graph returns something else in training.
``registration`` lists the vertices under whose names modules are registered, in the order of ``graph.parameters()``.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from torch_dag_core.errors import DuplicateOpError, SerializationError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.values import decode
from torch_dag_core.graph.vertex import InnerVertex, OutputVertex, Vertex
from torch_dag_core.plugins.discovery import PASSED_ON
from torch_dag_core.plugins.registry import OpSpec, Registry
from torch_dag_core.serialization.catalogue import build, constants_of, named_op, owner_version, spec_of
from torch_dag_core.serialization.interface import check_operands, check_structure, encode_checked, encode_spec
from torch_dag_core.serialization.limits import Extent, check_name, check_operand_count
from torch_dag_core.serialization.walk import Leaf, graphs, registration_order, tensor_places

FORMAT = 1


def describe(dag: DagModule, registry: Registry) -> dict[str, Any]:
    """Return the document of a graph, without the table of tensors.

    Args:
        dag: The graph.
        registry: The ops that may be saved. Classes of the graph that have a method ``config()`` are added to it.

    Raises:
        SerializationError: the graph holds something that cannot be saved; names the vertex.
    """
    description = _Description(dag, registry)
    *nested, root = graphs(dag)
    for graph in nested:
        description.add_graph(graph)
    return {
        "format": FORMAT,
        "graph": description.graph(root),
        "modules": description.modules,
        "ops": description.ops,
        "training": dag.training,
    }


class _Description:
    def __init__(self, root: DagModule, registry: Registry) -> None:
        self.training = root.training
        self.registry = registry
        self.extent = Extent()
        self.modules: list[dict[str, Any]] = []
        self.ops: dict[str, Any] = {}
        self._index: dict[nn.Module, int] = {}

    def add_graph(self, graph: DagModule) -> None:
        """Add a nested graph to the list of modules."""
        entry: dict[str, Any] = {"graph": self.graph(graph)}
        if graph.training is not self.training:
            entry["mode"] = [""]
        self._append(graph, entry)

    def graph(self, graph: DagModule) -> dict[str, Any]:
        """Return the JSON form of one graph, and add its modules to the list of modules."""
        _refuse_foreign_tensors(graph)
        self.extent.add(graph)
        position = {vertex: i for i, vertex in enumerate(graph.vertices)}
        return {
            "inputs": [_name(vertex) for vertex in graph.input_vertices],
            "vertices": [self._vertex(vertex, position) for vertex in graph.inner_vertices],
            "registration": [position[vertex] for vertex in registration_order(graph)],
            "outputs": [_output(vertex, position) for vertex in graph.output_vertices],
            "input_spec": encode_spec(graph.input_spec, len(graph.input_vertices)),
            "provenance": encode_checked(graph.provenance, "the provenance"),
        }

    def _vertex(self, vertex: InnerVertex, position: dict[Vertex, int]) -> dict[str, Any]:
        module = vertex.module
        is_first = module not in self._index
        if is_first:
            self._append(module, self._leaf(vertex))
        check_operand_count(vertex.name, len(vertex.predecessors))
        described: dict[str, Any] = {
            "name": _name(vertex),
            "module": self._index[module],
            "operands": [position[predecessor] for predecessor in vertex.predecessors],
        }
        config = self.modules[self._index[module]].get("config", {})
        check_operands([decode(item) for item in config.values()], len(vertex.predecessors), f"vertex {vertex.name!r}")
        return described

    def _append(self, module: nn.Module, entry: dict[str, Any]) -> None:
        self._index[module] = len(self.modules)
        self.modules.append(entry)

    def _leaf(self, vertex: InnerVertex) -> dict[str, Any]:
        try:
            spec = spec_of(self.registry, vertex.name, vertex.module)
        except DuplicateOpError as error:
            message = f"vertex {vertex.name!r} cannot be saved: {error}"
            raise SerializationError(message) from error
        config = _config(spec, vertex)
        _check_rebuilt(spec, vertex, config)
        self.ops[spec.key] = {
            "version": spec.version, "owner": spec.owner, "owner_version": owner_version(spec.owner),
        }  # fmt: skip
        entry: dict[str, Any] = {"op": spec.key, "config": config}
        mode = [path for path, module in vertex.module.named_modules() if module.training is not self.training]
        if mode:
            entry["mode"] = mode
        return entry


def _config(spec: OpSpec, vertex: InnerVertex) -> dict[str, Any]:
    try:
        config = constants_of(spec, vertex.module)
    except PASSED_ON:
        raise
    except BaseException as error:
        message = f"vertex {vertex.name!r} cannot be saved: {named_op(spec)} cannot read its configuration: {error}"
        raise SerializationError(message) from error
    what = f"of vertex {vertex.name!r} ({named_op(spec)})"
    return {name: encode_checked(value, f"constant {name!r} {what}") for name, value in config.items()}


def _check_rebuilt(spec: OpSpec, vertex: InnerVertex, config: dict[str, Any]) -> None:
    """Raise an error if a module built from the configuration has other constants, or tensors of other shapes."""
    prefix = f"vertex {vertex.name!r} cannot be saved: a {named_op(spec)}"
    try:
        rebuilt = build(spec, {name: decode(value) for name, value in config.items()})
        again = {name: encode_checked(value, name) for name, value in constants_of(spec, rebuilt).items()}
    except PASSED_ON:
        raise
    except BaseException as error:
        message = f"{prefix} cannot be built from its configuration {config!r:.200}: {error}"
        raise SerializationError(message) from error
    if again != config:
        message = f"{prefix} built from its configuration {config!r:.200} has the configuration {again!r:.200}"
        raise SerializationError(message)
    wanted, found = _tensors(vertex.name, vertex.module), _tensors(vertex.name, rebuilt)
    different = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if different:
        name = different[0]
        message = (
            f"{prefix} built from its configuration has {found.get(name, 'nothing')} as {name!r}, "
            f"the vertex has {wanted.get(name, 'nothing')}"
        )
        raise SerializationError(message)


def _tensors(vertex: str, module: nn.Module) -> dict[str, str]:
    """Describe each tensor by what its module's configuration determines: kind and shape, but not dtype."""
    return {
        place.name: f"a {'parameter' if place.is_parameter else 'buffer'} of shape {tuple(place.tensor.shape)}"
        f"{'' if place.is_persistent else ', not persistent'}"
        for place in tensor_places(Leaf(vertex, module))
    }


def _name(vertex: Vertex) -> str:
    check_name(vertex.name)
    return vertex.name


def _output(output: OutputVertex, position: dict[Vertex, int]) -> dict[str, Any]:
    check_operand_count(output.name, len(output.predecessors))
    check_structure(output.structure, len(output.predecessors), f"the {output.name}")
    return {
        "structure": encode_checked(output.structure, f"the {output.name}"),
        "operands": [position[predecessor] for predecessor in output.predecessors],
    }


def _refuse_foreign_tensors(graph: DagModule) -> None:
    """Raise an error for tensors that belong to the graph but to none of its vertices; a file would lose them."""
    modules = {vertex.module for vertex in graph.inner_vertices}
    stack: list[tuple[str, nn.Module]] = [("", graph)]
    while stack:
        prefix, module = stack.pop()
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                message = f"{prefix + name!r} is in the graph but in no vertex; add a vertex that holds it"
                raise SerializationError(message)
        children = ((f"{prefix}{name}.", child) for name, child in module._modules.items() if child is not None)
        stack.extend((path, child) for path, child in children if child not in modules)
