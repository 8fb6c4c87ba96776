"""Walks the joined traces and hands every call to whoever turns it into vertices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import fx, nn

from torch_dag_core.conversion.asking import ask
from torch_dag_core.conversion.builder import Builder, Call, Value
from torch_dag_core.conversion.joining import ByMode, Event, Sizes, is_persistent, is_same, needed_by
from torch_dag_core.conversion.signatures import bind_operands, by_signature, torch_call
from torch_dag_core.errors import TraceError
from torch_dag_core.graph.vertex import InnerVertex, Vertex
from torch_dag_core.ops.layout import GetItem
from torch_dag_core.ops.stochastic import TrainingSwitch
from torch_dag_core.ops.tensors import Constant, FreeParameter, Keep, State
from torch_dag_core.plugins.registry import Registry
from torch_dag_core.tracing.aliasing import apply_op, pick


class Emission:
    """One pass over the events of a model, in order; values of both modes are kept apart until they meet."""

    def __init__(
        self, model: nn.Module, registry: Registry, builder: Builder, evaluation: Sizes, training: Sizes
    ) -> None:
        self._model, self._registry, self._builder = model, registry, builder
        self._evaluation, self._training = evaluation, training
        self._values: dict[fx.Node, Any] = {}
        builder.value_of = self._values.get  # type: ignore[assignment]
        self._switches: dict[tuple[int, int], Value] = {}
        self._states: dict[str, tuple[State, Value]] = {}
        self._parameters = dict(model.named_parameters(remove_duplicate=False))
        self._held: dict[str, Value] = {}
        self._readers: dict[str, list[fx.Node]] = {}
        for node in (*evaluation.trace.nodes, *training.trace.nodes):
            if node.op == "get_attr":
                self._readers.setdefault(str(node.target), []).extend(node.users)
        traces = (evaluation.trace, training.trace)
        read = needed_by([node for t in traces for node in (*t.outputs, *t.writes)], self._is_folded)
        self._unread = [node for t in traces for node in t.changes if node not in read]
        self._live = read | needed_by(self._unread, self._is_folded)

    def inputs(self, names: list[str]) -> None:
        """Create the input vertices."""
        dag = self._builder.dag
        for name, node, twin in zip(names, self._evaluation.trace.nodes, self._training.trace.nodes, strict=False):
            vertex = dag.add_input(dag.unique_name(name))
            value = Value(lambda vertex=vertex: vertex)  # type: ignore[misc]
            self._builder.remember(value, self._evaluation.shape(node), node.meta["dtype"])
            self._builder.inputs.append(value)
            self._values[node] = self._values[twin] = value

    def add(self, event: Event) -> None:
        """Emit the vertices of one event."""
        nodes = [node for node in (event.evaluation, event.training) if node is not None]
        live = [node in self._live for node in nodes]
        if nodes[0].op == "placeholder" or not any(live):
            return
        if not all(live) or len({self._is_folded(node) for node in nodes}) > 1:
            self._add_apart(event)
            return
        if self._is_folded(nodes[0]):
            self._sizes(event).claim_constant(nodes[0])
        value = self._constant(nodes[0]) if self._is_folded(nodes[0]) else self._emit(event)
        if isinstance(value, Value):
            self._builder.remember(value, self._sizes(event).shape(event.node), event.node.meta.get("dtype"))
        written = event.node.meta.get("writes")
        if written is not None:
            value = self._update_state(written, value, event)
        for node in nodes:
            self._values[node] = value

    def _add_apart(self, event: Event) -> None:
        self.add(Event(event.evaluation, None))
        self.add(Event(None, event.training))

    def outputs(self) -> None:
        """Set what the graph returns; another structure in training becomes an output of its own."""
        dag = self._builder.dag
        self._drop_absorbed()
        self._keep_unread()
        first, second = self._evaluation.trace, self._training.trace
        values = [self._values[node] for node in first.outputs]
        others = [self._values[node] for node in second.outputs]
        if first.output_template == second.output_template:
            values = [self._switched(a, b) for a, b in zip(values, others, strict=True)]
        else:
            dag.set_outputs(second.output_template, [value.vertex for value in others], training_only=True)
        dag.set_outputs(first.output_template, [value.vertex for value in values])

    def _keep_unread(self) -> None:
        """Keep the calls that are made for what they change alone, in one mode or in both."""
        unread = {value.vertex: value for node in self._unread for value in _values_in(self._values[node])}
        for vertex, value in unread.items():
            self._builder.emit(f"{vertex.name}_kept", Keep(), (value,))

    def _drop_absorbed(self) -> None:
        """Remove the counters that a promoted batch norm keeps itself."""
        stack = [self._states[name][1].vertex for name in self._builder.absorbed if name in self._states]
        while stack:
            vertex = stack.pop()
            if isinstance(vertex, InnerVertex) and vertex.name in self._builder.dag and not vertex.uses:
                stack.extend(vertex.predecessors)
                self._builder.dag.remove_unused(vertex)

    # Constants, parameters and state ---------------------------------------------------------------------------

    def _is_folded(self, node: fx.Node) -> bool:
        sizes = self._evaluation if node.graph is self._evaluation.trace.graph else self._training
        return bool(node.meta["constant"]) and "value" in node.meta and sizes.same_value(node)

    def _constant(self, node: fx.Node) -> Value:
        held = node.op == "get_attr" and node.meta["held"] == "buffer"
        name = str(node.target) if held else _join(node.meta["module"], node.meta["function"].strip("_"))
        tensor = node.meta["value"]
        persistent = held and is_persistent(self._model, name)

        def make() -> Any:
            copy = self._builder.copy_of(tensor.detach())
            vertex = Constant(tuple(copy.shape), copy.dtype, persistent=persistent, value=copy)
            return self._builder.emit(name, vertex, (), own=held).vertex

        return self._once(name, make, tensor) if held else Value(make, tensor=tensor)

    def _once(self, name: str, make: Callable[[], Vertex], tensor: Any) -> Value:
        """Return the value of one of the model's own tensors, whichever mode reads it."""
        if name not in self._held:
            self._held[name] = Value(make, held=name, tensor=tensor, readers=tuple(self._readers[name]))
        return self._held[name]

    def _attribute(self, node: fx.Node) -> Value:
        name = str(node.target)
        if name in self._evaluation.trace.state or name in self._training.trace.state:
            return self._state(name)
        tensor = self._parameter(name, node)

        def make() -> Any:
            copy = self._builder.copy_of(tensor)
            shape = tuple(copy.shape)
            holder = FreeParameter(shape, copy.dtype, value=copy)
            return self._builder.emit(name, holder, (), own=True).vertex

        return self._once(name, make, tensor)

    def _parameter(self, name: str, node: fx.Node) -> Any:
        if node.meta["held"] != "parameter":
            message = f"the constant {name!r} follows the input sizes, but the trace cannot see how it is made"
            raise TraceError(message)
        return self._parameters.get(name, node.meta["owner"])

    def _state(self, name: str) -> Value:
        if name not in self._states:
            buffer = self._builder.copy_of(self._model.get_buffer(name))
            module = State(tuple(buffer.shape), buffer.dtype, value=buffer)
            self._states[name] = (module, self._builder.emit(name, module, (), own=True))
        return self._states[name][1]

    def _update_state(self, name: str, value: Value, event: Event) -> Value:
        current = self._state(name)
        module = self._states[name][0]
        if event.evaluation is None:
            value = self._switched(current, value)
        updated = self._builder.emit(f"{name}_update", module, (value,))
        self._states[name] = (module, updated)
        return updated

    # Calls -----------------------------------------------------------------------------------------------------

    def _sizes(self, event: Event) -> Sizes:
        return self._training if event.evaluation is None else self._evaluation

    def _emit(self, event: Event) -> Any:
        node = event.node
        if node.op == "get_attr":
            return self._attribute(node)
        args, keywords = self._arguments(event)
        if node.target is pick:
            values, index = args
            if isinstance(values, (tuple, list)):
                return values[index]
            return self._builder.emit(_join(node.meta["module"], "getitem"), GetItem(index), (values,))
        if node.target is getattr:
            args = args[:1]  # the attribute's name is that of the call
        call = self._call(event, args, keywords)
        if node.target is apply_op:
            op, constants, *operands = args
            return call.emit(op(*constants), *operands)
        return self._emit_module(call, str(node.target)) if node.op == "call_module" else self._emit_function(call)

    def _call(self, event: Event, args: Any, keywords: Any) -> Call:
        node, sizes = event.node, self._sizes(event)
        items = sizes.joined(node, node.meta.get("shapes"), lambda n: n.meta.get("shapes")) or ()
        return Call(
            builder=self._builder, name=node.meta["function"], args=tuple(args), keywords=keywords,
            shape=sizes.shape(node), dtype=node.meta.get("dtype"), length=node.meta.get("length"),
            item_shapes=tuple(shape or () for shape in items),
            scope=node.meta["module"], source=node.meta["source"],
            path=self._path(node) if node.op == "call_module" else "",
        )  # fmt: skip

    def _path(self, node: fx.Node) -> str:
        """Return the path of a called module; a model that is one vertex is named after its class."""
        return str(node.target) or self._builder.free_name(node.meta["function"])

    def _emit_module(self, call: Call, target: str) -> Any:
        module = self._model.get_submodule(target)
        copy = self._builder.copy_of(module)
        if not target:
            self._builder.moved[call.path] = ""
        atomic = self._registry.atomic_for(module)
        if atomic is not None and atomic.convert is not None:
            return ask(atomic.owner, f"the converter of {atomic.name!r}", atomic.convert, call, copy)
        operands = bind_operands(call, module)
        return call.emit(copy, *operands, path=call.path)

    def _emit_function(self, call: Call) -> Any:
        for normalizer in self._registry.normalizers_for(call.name):
            result = ask(normalizer.owner, f"the normalizer of {call.name!r}", normalizer.normalize, call)
            if result is not NotImplemented:
                return result
        spec = self._registry.for_function(call.name)
        op: Any = None if spec is None else spec.target
        result = NotImplemented if op is None else by_signature(call, op)
        return torch_call(call) if result is NotImplemented else result

    # Arguments of both modes -----------------------------------------------------------------------------------

    def _arguments(self, event: Event) -> tuple[Any, Any]:
        joined = self._sizes(event).joined_arguments(event.node)
        twin = event.training if event.evaluation is not None else None
        other = None if twin is None else self._training.joined_arguments(twin)
        return self._merged(joined, other)  # type: ignore[no-any-return]

    def _merged(self, joined: Any, other: Any) -> Any:
        """Replace nodes by values, and constants that differ in the other mode by `ByMode`."""
        if isinstance(joined, fx.Node):
            value = self._values[joined]
            return value if other is None else self._switched(value, self._values[other])
        if isinstance(joined, (tuple, list)):
            others = [None] * len(joined) if other is None else other
            return type(joined)([self._merged(*parts) for parts in zip(joined, others, strict=True)])
        if isinstance(joined, dict):
            return {key: self._merged(item, None if other is None else other[key]) for key, item in joined.items()}
        if isinstance(joined, slice):
            parts = ("start", "stop", "step")
            pairs = [(getattr(joined, part), getattr(other, part, None)) for part in parts]
            return slice(*(self._merged(*pair) for pair in pairs))
        return joined if other is None or is_same(joined, other) else ByMode(joined, other)

    def _switched(self, evaluation: Any, training: Any) -> Any:
        if evaluation is training:
            return evaluation
        if not isinstance(evaluation, Value):
            return type(evaluation)(self._switched(a, b) for a, b in zip(evaluation, training, strict=True))
        key = (id(evaluation), id(training))
        if key not in self._switches:
            switch = self._builder.emit("training_switch", TrainingSwitch(), (evaluation, training))
            self._builder.remember(switch, evaluation.shape, evaluation.dtype)
            self._switches[key] = switch
        return self._switches[key]


def _values_in(values: Any) -> Iterator[Value]:
    for value in values if isinstance(values, (tuple, list)) else (values,):
        yield from (value,) if isinstance(value, Value) else _values_in(value or ())


def _join(scope: str, name: str) -> str:
    return f"{scope}.{name}" if scope else name
