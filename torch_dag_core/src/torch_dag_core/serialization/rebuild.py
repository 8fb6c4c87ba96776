"""Building a graph from its JSON document on the meta device, without reading weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode

from torch_dag_core.errors import GraphError, SerializationError
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.vertex import InnerVertex, Vertex
from torch_dag_core.plugins.discovery import PASSED_ON, VARIABLE
from torch_dag_core.plugins.loading import list_plugins
from torch_dag_core.plugins.registry import OpSpec, Registry
from torch_dag_core.serialization.catalogue import USER_NAMESPACE, build, named_op, owner_version
from torch_dag_core.serialization.describe import FORMAT
from torch_dag_core.serialization.interface import check_operands, check_structure, decode_spec
from torch_dag_core.serialization.limits import Extent, check_name, check_operand_count
from torch_dag_core.serialization.node import Node
from torch_dag_core.serialization.walk import is_graph

# Limits on the number of torch calls that all constructors together may make, against modules of 10**9 layers.
_CALLS, _CALLS_PER_MODULE, _CALLS_PER_TENSOR = 10_000, 1_000, 100


def rebuild(document: Node, registry: Registry) -> DagModule:
    """Return the graph with all modules on the meta device.

    Raises:
        SerializationError: the document is damaged, of a newer format, or uses ops that are not registered.
    """
    _check_format(document)
    return _Builder(document, registry).build()


def _check_format(document: Node) -> None:
    """Check the version before anything else, because a newer format may have other fields."""
    table = document.table()
    if "format" not in table:
        document.fail("has no 'format'")
    version = table["format"].integer()
    if version > FORMAT:
        message = f"the file has format {version}, this torch-dag-core reads up to {FORMAT}; upgrade torch-dag-core"
        raise SerializationError(message)
    if version < 1:
        table["format"].fail("must be at least 1")


@dataclass(frozen=True)
class _UsedOp:
    """An op that the file uses.

    Attributes:
        spec: The op here.
        version: The version of the op whose configuration is in the file.
        writer: The distribution that wrote the file, with its version.
    """

    spec: OpSpec
    version: int
    writer: str


class _Builder:
    def __init__(self, document: Node, registry: Registry) -> None:
        self.fields = document.fields("format", "graph", "modules", "ops", "tensors", "training")
        self.registry = registry
        self.entries = self.fields["modules"].items()
        self.training = self.fields["training"].flag()
        self.extent = Extent()
        self.modules: list[nn.Module] = []
        self.constants: dict[nn.Module, list[Any]] = {}

    def build(self) -> DagModule:
        self.ops = {key: self._op(key, node) for key, node in self.fields["ops"].table().items()}
        tensors = len(self.fields["tensors"].table())
        with _CallBudget(_CALLS + _CALLS_PER_MODULE * len(self.entries) + _CALLS_PER_TENSOR * tensors):
            for index, entry in enumerate(self.entries):
                self.modules.append(self._module(index, entry))
        root = self._graph(self.fields["graph"])
        unused = set(self.modules) - _called_modules([root, *self.modules])
        if unused:
            self.fields["modules"].fail(f"lists {len(unused)} modules that no vertex calls")
        self._set_modes(root)
        return root

    # Ops and modules -------------------------------------------------------------------------------------------

    def _op(self, key: str, node: Node) -> _UsedOp:
        fields = node.fields("version", "owner", "owner_version")
        version = fields["version"].integer()
        owner = _distribution(fields["owner"].text(), fields["owner_version"].text())
        spec = self.registry.find(key)
        if spec is None or spec.codec is None:
            remedy = _remedy(key, owner, spec, fields["owner"].text())
            message = f"{self._caller_of_op(key)} uses the op {key!r:.60}, {remedy}"
            raise SerializationError(message)
        if version > spec.version:
            message = f"the op {key!r} has version {version} in the file, {spec.version} here; upgrade {owner}"
            raise SerializationError(message)
        if version < spec.version and spec.migrate is None:
            message = (
                f"the op {key!r} has version {version} in the file, {spec.version} here, and {spec.owner!r} "
                f"cannot read the older one; install {owner} as it was when the file was written"
            )
            raise SerializationError(message)
        return _UsedOp(spec, version, owner)

    def _module(self, index: int, entry: Node) -> nn.Module:
        if "graph" in entry.table():
            return self._graph(entry.fields("graph", optional=["mode"])["graph"])
        fields = entry.fields("op", "config", optional=["mode"])
        key = fields["op"].text()
        if key not in self.ops:
            fields["op"].fail(f"is {key!r:.60}, which the table 'ops' lacks")
        config = {name: node.constant() for name, node in fields["config"].table().items()}
        module = self._leaf(index, self.ops[key], config)
        self.constants[module] = list(config.values())
        return module

    def _leaf(self, index: int, op: _UsedOp, config: dict[str, Any]) -> nn.Module:
        spec = op.spec
        try:
            if op.version < spec.version:
                assert spec.migrate is not None
                config = spec.migrate(op.version, config)
            return build(spec, config)
        except PASSED_ON:
            raise
        except BaseException as error:
            message = (
                f"{self._caller(index)}: no {named_op(spec)} can be built from {config!r:.200}: {error!s:.300}"
                f"{_other_writer(op)}"
            )
            raise SerializationError(message) from error

    def _caller(self, index: int) -> str:
        """Return a name for messages: that of the first vertex that calls a module."""
        nested = (entry.value.get("graph") for entry in self.entries if isinstance(entry.value, dict))
        name = _callers([self.fields["graph"].value, *nested]).get(index)
        return f"module {index}, which no vertex calls," if name is None else f"vertex {name!r:.100}"

    def _caller_of_op(self, key: str) -> str:
        for index, entry in enumerate(self.entries):
            if isinstance(entry.value, dict) and entry.value.get("op") == key:
                return self._caller(index)
        return "the file"

    # Graphs ----------------------------------------------------------------------------------------------------

    def _graph(self, node: Node) -> DagModule:
        fields = node.fields("inputs", "vertices", "registration", "outputs", "input_spec", "provenance")
        graph = DagModule()
        vertices: list[Vertex] = []
        for name in fields["inputs"].items():
            with _errors_located_at(name):
                vertices.append(graph.add_input(_valid_name(name.text())))
        for vertex in fields["vertices"].items():
            vertices.append(self._vertex(graph, vertex, vertices))
        _register(graph, fields["registration"], vertices)
        _set_outputs(graph, fields["outputs"], vertices)
        graph.input_spec = decode_spec(fields["input_spec"], len(graph.input_vertices))
        graph.provenance = fields["provenance"].constant()
        if type(graph.provenance) is not dict:
            fields["provenance"].fail("must be a dictionary")
        with _errors_located_at(node):
            self.extent.add(graph)
        return graph

    def _vertex(self, graph: DagModule, node: Node, vertices: list[Vertex]) -> Vertex:
        fields = node.fields("name", "module", "operands")
        module = self.modules[fields["module"].integer(below=len(self.modules))]
        with _errors_located_at(node):
            name = _valid_name(fields["name"].text())
            operands = _operands(name, fields["operands"], vertices)
            check_operands(self.constants.get(module, []), len(operands), f"vertex {name!r}")
            return graph.add_vertex(name, module, operands)

    def _set_modes(self, root: DagModule) -> None:
        for module in root.modules():
            module.training = self.training
        for entry, module in zip(self.entries, self.modules, strict=True):
            mode = entry.table().get("mode")
            known = {} if mode is None else dict(module.named_modules())
            for path in mode.items() if mode is not None else ():
                if path.text() not in known:
                    path.fail(f"names no submodule of {type(module).__name__}")
                known[path.text()].training = not self.training


def _operands(name: str, node: Node, vertices: list[Vertex]) -> list[Vertex]:
    items = node.items()
    check_operand_count(name, len(items))
    for item in items:
        if item.integer() >= len(vertices):
            item.fail(f"is {item.value!r:.60}, which is no vertex before {name!r}: the graph would have a cycle")
    return [vertices[item.integer()] for item in items]


def _register(graph: DagModule, node: Node, vertices: list[Vertex]) -> None:
    """Register the modules in the order of the saved graph, because optimizers number parameters in this order."""
    registrations = graph._records.registrations
    chosen = [vertices[item.integer(below=len(vertices))] for item in node.items()]
    naming = {vertex.module: vertex for vertex in chosen if isinstance(vertex, InnerVertex)}
    if len(naming) < len(chosen) or naming.keys() != registrations.modules:
        node.fail("must name one vertex of every module")
    registrations.register_anew(naming.values())


def _set_outputs(graph: DagModule, node: Node, vertices: list[Vertex]) -> None:
    outputs = node.items()
    if len(outputs) not in (1, 2):
        node.fail(f"must hold one output, or one for evaluation and one for training, not {len(outputs)}")
    for output, training_only in zip(outputs, (False, True), strict=False):
        fields = output.fields("structure", "operands")
        structure = fields["structure"].constant()
        with _errors_located_at(output):
            operands = _operands("the output", fields["operands"], vertices)
            check_structure(structure, len(operands), "the output")
            graph.set_outputs(structure, operands, training_only=training_only)


def _valid_name(name: str) -> str:
    check_name(name)
    return name


@contextlib.contextmanager
def _errors_located_at(node: Node) -> Iterator[None]:
    """Add the path of a node in the document to the errors of checks."""
    try:
        yield
    except (GraphError, SerializationError) as error:
        place = "" if str(error).startswith("graph document") else f"{node.path}: "
        message = f"{place}{error}"
        raise SerializationError(message) from error


def _called_modules(graphs: Iterable[nn.Module]) -> set[nn.Module]:
    return {vertex.module for graph in graphs if is_graph(graph) for vertex in graph.inner_vertices}


def _distribution(owner: str, version: str) -> str:
    return f"{owner!r:.60}{f' {version:.30}' if version else ''}"


def _remedy(key: str, owner: str, spec: OpSpec | None, distribution: str) -> str:
    """Say why an op cannot be built here, and what to do about it."""
    if spec is not None:
        return "which is registered here without a codec; register it with one"
    if key.startswith(USER_NAMESPACE):
        name = key.removeprefix(USER_NAMESPACE)
        return f"a class of whoever saved the file; pass it: load(path, atomic_modules=({name:.60},))"
    return f"which is not registered here; install {owner}{_plugin_state(distribution)}"


def _plugin_state(distribution: str) -> str:
    """Say why an installed distribution does not provide an op; an empty string if it is not installed."""
    found = next((info for info in list_plugins() if info.distribution == distribution), None)
    if found is None:
        return ""
    if found.disabled:
        return f"; its plugin {found.name!r} is installed, but switched off by {VARIABLE}"
    return f"; {distribution!r} {found.version} is installed, but {found.error or 'has no such op'}"


def _other_writer(op: _UsedOp) -> str:
    """Name the distribution's versions in the file and here, if they differ."""
    here = _distribution(op.spec.owner, owner_version(op.spec.owner))
    return "" if op.writer == here else f" (the file was written with {op.writer}, here is {here})"


def _callers(graphs: Iterable[Any]) -> dict[int, str]:
    """Return the name of the first vertex that calls each module. Any part of the document may be damaged."""
    found: dict[int, str] = {}
    for graph in graphs:
        vertices = graph.get("vertices") if isinstance(graph, dict) else None
        for vertex in vertices if isinstance(vertices, list) else ():
            if isinstance(vertex, dict) and isinstance(vertex.get("module"), int):
                found.setdefault(vertex["module"], str(vertex.get("name")))
    return found


class _CallBudget(TorchFunctionMode):
    """Raises an error when constructors have made more torch calls than allowed."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.calls = calls

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        del types
        self.calls -= 1
        if self.calls < 0:
            message = "its constructor makes too many tensors"
            raise RuntimeError(message)
        return func(*args, **(kwargs or {}))
