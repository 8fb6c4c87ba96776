"""Turns joined calls into vertices, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias, cast

from torch import Tensor, nn

from torch_dag_core.conversion.asking import ask, explaining
from torch_dag_core.conversion.both_modes import JoinedCall, JoinedModel
from torch_dag_core.conversion.builder import Builder, Call, Emitted, Operand, Results, Value, stem_of
from torch_dag_core.conversion.folding import is_persistent
from torch_dag_core.conversion.free_sizes import Claim
from torch_dag_core.conversion.joining import ByMode
from torch_dag_core.conversion.normalizers.promotion import readers_by_path
from torch_dag_core.conversion.signatures import bind_operands, by_signature, torch_call
from torch_dag_core.errors import TraceError
from torch_dag_core.graph.builtin_ops import Constant, FreeParameter, GetItem, State, TrainingSwitch
from torch_dag_core.graph.nested import leaves, map_leaves, map_pairs
from torch_dag_core.graph.vertex import InnerVertex, Vertex
from torch_dag_core.ops.tensors import Keep
from torch_dag_core.plugins.registry import Registry
from torch_dag_core.tracing.recording import Entry, FunctionCall, Held, Input, ModuleCall, OpCall, Pick, Ref

Handler: TypeAlias = "Callable[[Emission, JoinedCall], Results]"


class Emission:
    """One pass over the joined calls of a model, in order.

    Attributes:
        claims: What the constants of the calls so far rest on.
    """

    def __init__(self, model: nn.Module, registry: Registry, builder: Builder, joined: JoinedModel) -> None:
        self._model, self._registry, self._builder, self._joined = model, registry, builder, joined
        self.claims: list[Claim] = []
        self._values = builder.values
        self._switches: dict[tuple[int, int], Value] = {}
        self._states: dict[str, tuple[State, Value]] = {}
        self._parameters = dict(model.named_parameters(remove_duplicate=False))
        self._held: dict[str, Value] = {}
        recordings = (joined.evaluation.recording, joined.training.recording)
        self._readers = readers_by_path(recordings)
        self._written = frozenset(name for recording in recordings for name in recording.written)

    def run(self) -> None:
        """Emit every call, and set what the graph returns."""
        try:
            for call in self._joined.calls():
                self._values.append(self._value(call))
                self.claims += call.claims
            self._drop_absorbed()
            self._keep_unread()
            self._set_outputs()
        finally:  # values of constants refer to this object, which would outlive the conversion in a cycle
            self._values.clear()
            self._held.clear()

    def _value(self, call: JoinedCall) -> Results:
        entry = call.entry
        value = self._constant(entry) if call.is_folded else _HANDLERS[type(entry)](self, call)
        if isinstance(value, Value):
            self._builder.remember(value, call.shape, entry.outcome.dtype)
        if entry.writes is not None:
            value = self._update_state(entry.writes, value, call)
        return value

    def _set_outputs(self) -> None:
        """Set what the graph returns; another structure in training becomes an output of its own."""
        dag, joined = self._builder.dag, self._joined
        template, other = (sizes.recording.template for sizes in (joined.evaluation, joined.training))
        values = [self._values[number] for number in joined.outputs]
        others = [self._values[number] for number in joined.training_outputs]
        if template == other:
            values = [self._switched(a, b) for a, b in zip(values, others, strict=True)]
        else:
            dag.set_outputs(other, _vertices(others), training_only=True)
        dag.set_outputs(template, _vertices(values))

    def _keep_unread(self) -> None:
        """Keep the calls that are made for what they change alone, in one mode or in both."""
        unread = {value.vertex: value for number in self._joined.unread for value in _values_in(self._values[number])}
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

    # Inputs, constants, parameters and state -------------------------------------------------------------------

    def _input(self, call: JoinedCall) -> Value:
        vertex = self._builder.dag.add_input(self._builder.dag.unique_name(call.entry.name))
        value = Value(lambda: vertex)
        self._builder.inputs.append(value)
        return value

    def _constant(self, entry: Entry) -> Value:
        tensor = cast("Tensor", entry.outcome.tensor)
        path = entry.path if isinstance(entry, Held) and entry.kind == "buffer" else None
        name = _join(entry.origin.scope, stem_of(entry.name)) if path is None else path
        persistent = path is not None and is_persistent(self._model, path)

        def make() -> Vertex:
            copy = self._builder.copy_of(tensor.detach())
            vertex = Constant(tuple(copy.shape), copy.dtype, persistent=persistent, value=copy)
            return self._builder.emit(name, vertex, (), own=path is not None).vertex

        return Value(make, tensor=tensor) if path is None else self._once(path, make, tensor)

    def _once(self, name: str, make: Callable[[], Vertex], tensor: Tensor) -> Value:
        """Return the value of one of the model's own tensors, whichever mode reads it."""
        if name not in self._held:
            self._held[name] = Value(make, held=name, tensor=tensor, read_by=self._readers[name])
        return self._held[name]

    def _attribute(self, call: JoinedCall) -> Value:
        entry = cast("Held", call.entry)
        name = entry.path
        if name in self._written:
            return self._state(name)
        tensor = self._parameter(entry)

        def make() -> Vertex:
            copy = self._builder.copy_of(tensor)
            holder = FreeParameter(tuple(copy.shape), copy.dtype, value=copy)
            return self._builder.emit(name, holder, (), own=True).vertex

        return self._once(name, make, tensor)

    def _parameter(self, entry: Held) -> Tensor:
        if entry.kind != "parameter":
            message = f"the constant {entry.path!r} follows the input sizes, but the trace cannot see how it is made"
            raise TraceError(message)
        return self._parameters.get(entry.path, entry.tensor)

    def _state(self, name: str) -> Value:
        if name not in self._states:
            buffer = self._builder.copy_of(self._model.get_buffer(name))
            module = State(tuple(buffer.shape), buffer.dtype, value=buffer)
            self._states[name] = (module, self._builder.emit(name, module, (), own=True))
        return self._states[name][1]

    def _update_state(self, name: str, value: Results, call: JoinedCall) -> Value:
        current = self._state(name)
        module = self._states[name][0]
        if call.training_only:
            value = self._switched(current, value)
        updated = self._builder.emit(f"{name}_update", module, (cast("Value", value),))
        self._states[name] = (module, updated)
        return updated

    # Calls -----------------------------------------------------------------------------------------------------

    def _pick(self, call: JoinedCall) -> Results:
        entry = cast("Pick", call.entry)
        ((values,), _) = self._arguments(call)
        if isinstance(values, (tuple, list)):
            return cast("Results", values[entry.index])
        name = _join(entry.origin.scope, entry.name)
        return self._builder.emit(name, GetItem(entry.index), (cast("Value", values),))

    def _op(self, joined: JoinedCall) -> Value:
        call = self._call(joined)
        op = cast("OpCall", joined.entry).op
        with explaining(call):
            return call.emit(op(**call.keywords), *cast("tuple[Value, ...]", call.args))

    def _module(self, joined: JoinedCall) -> Results:
        target = cast("ModuleCall", joined.entry).path
        # A model that is one vertex is named after its class.
        call = self._call(joined, path=target or self._builder.free_name(joined.entry.name))
        module = self._model.get_submodule(target)
        copy = self._builder.copy_of(module)
        if not target:
            self._builder.moved[call.path] = ""
        atomic = self._registry.atomic_for(module)
        if atomic is not None and atomic.convert is not None:
            return ask(atomic.owner, f"the converter of {atomic.name!r}", atomic.convert, call, copy)
        with explaining(call):
            return call.emit(copy, *bind_operands(call, module), path=call.path)

    def _function(self, joined: JoinedCall) -> Results:
        call = self._call(joined)
        for normalizer in self._registry.normalizers_for(call.name):
            result = ask(normalizer.owner, f"the normalizer of {call.name!r}", normalizer.normalize, call)
            if result is not NotImplemented:
                return result
        spec = self._registry.for_function(call.name)
        with explaining(call):
            bound: Emitted = NotImplemented if spec is None else by_signature(call, spec.target)
            return bound if isinstance(bound, Value) else torch_call(call)

    def _call(self, joined: JoinedCall, path: str = "") -> Call:
        entry = joined.entry
        args, keywords = self._arguments(joined)
        return Call(
            builder=self._builder, name=entry.name, args=args, keywords=keywords, shape=joined.shape,
            dtype=entry.outcome.dtype, length=None if joined.items is None else len(joined.items),
            item_shapes=tuple(shape or () for shape in joined.items or ()), scope=entry.origin.scope,
            source=entry.origin.source, path=path,
        )  # fmt: skip

    def _arguments(self, call: JoinedCall) -> tuple[tuple[Operand, ...], dict[str, Operand]]:
        """Return the arguments with values in place of references."""
        given: tuple[tuple[Operand, ...], dict[str, Operand]] = map_leaves((call.args, dict(call.keywords)), self._leaf)
        return given

    def _leaf(self, leaf: object) -> object:
        if isinstance(leaf, Ref):
            return self._values[leaf.index]
        if isinstance(leaf, ByMode) and isinstance(leaf.evaluation, Ref):
            return self._switched(self._values[leaf.evaluation.index], self._values[leaf.training.index])
        return leaf

    def _switched(self, evaluation: Results, training: Results) -> Results:
        """Return the value, or values, that are the first in evaluation and the second in training."""
        if evaluation is training:
            return evaluation
        values: Results = map_pairs(evaluation, training, self._switch)
        return values

    def _switch(self, evaluation: Results, training: Results) -> Results:
        if evaluation is training:
            return evaluation
        if not isinstance(evaluation, Value) or not isinstance(training, Value):
            message = "a call gives one tensor in one mode and several in the other"
            raise TraceError(message)
        key = (id(evaluation), id(training))
        if key not in self._switches:
            switch = self._builder.emit("training_switch", TrainingSwitch(), (evaluation, training))
            self._builder.remember(switch, evaluation.shape, evaluation.dtype)
            self._switches[key] = switch
        return self._switches[key]


_HANDLERS: dict[type[Entry], Handler] = {
    Input: Emission._input, Held: Emission._attribute, FunctionCall: Emission._function, ModuleCall: Emission._module,
    OpCall: Emission._op, Pick: Emission._pick,
}  # fmt: skip


def _values_in(results: Results) -> Iterator[Value]:
    return (leaf for leaf in leaves(results) if isinstance(leaf, Value))


def _vertices(values: Iterable[Results]) -> list[Vertex]:
    return [cast("Value", value).vertex for value in values]


def _join(scope: str, name: str) -> str:
    return f"{scope}.{name}" if scope else name
