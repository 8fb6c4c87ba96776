"""The function mode that turns every torch call into a `torch.fx` node while the model really runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from torch_dag_core.errors import TraceError
from torch_dag_core.tracing.aliasing import WRITE_BACK, TensorRecord, View, pick, set_index
from torch_dag_core.tracing.execution import CREATION, run
from torch_dag_core.tracing.names import ESCAPES, RANDOM, canonical, is_property, spelling
from torch_dag_core.tracing.sizes import Guard, TracedInt, plain

_LIBRARY_FOLDERS = (f"{Path(torch.__file__).parent}{os.sep}", f"{Path(__file__).parents[1]}{os.sep}")
_SIZE_NAMES = frozenset({"shape", "size", "numel", "nelement"})
_STATISTICS = frozenset({"batch_norm", "instance_norm"})
_PRETENDED = frozenset({"device", "is_cuda", "is_meta", "is_cpu", "is_mps", "is_xpu"})
_KEY = "_torch_dag_record"


class Recorder(TorchFunctionMode):
    """Records calls into ``graph``; tensors carry their node as an attribute for the length of the trace."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.guards: list[Guard] = []
        self.modules: list[str] = []
        self.constants: dict[str, Tensor] = {}
        self.state: dict[str, Tensor] = {}
        self._paused = 0
        self._device = device
        self._held: dict[int, tuple[Tensor, str, bool]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            self._held.setdefault(id(parameter), (parameter, name, True))
        for name, buffer in model.named_buffers(remove_duplicate=False):
            self._held.setdefault(id(buffer), (buffer, name, False))
        self.touched: list[Tensor] = []

    # Entry points ----------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the call, and record it unless the trace is inside a leaf."""
        kwargs = kwargs or {}
        if self._paused:
            return run(func, spelling(func), args, kwargs)
        name = spelling(func)
        if name in _PRETENDED:
            return self._pretend(name)
        if is_property(func) or name in _SIZE_NAMES:
            return self._attribute(func, name, args, kwargs)
        if name.startswith(("_set_grad", "_is_", "is_", "_has", "set ", "requires_grad", "_autocast")):
            if name not in ESCAPES:
                return func(*args, **kwargs)
        args, kwargs = plain(args), plain(kwargs)
        tensors = list(tensors_in((args, kwargs)))
        if name in ESCAPES:
            self._refuse_escape(name, tensors)
            return func(*args, **kwargs)
        return self._record_function(func, name, args, kwargs, tensors)

    def input(self, name: str, value: Tensor) -> None:
        """Record one input tensor."""
        self._own(value, self._node("placeholder", name, (), {}, name))
        self._describe(self._record(value).node, value, constant=False)

    def call_leaf(self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a leaf module as one recorded call."""
        args, kwargs = plain(args), plain(kwargs)
        tensors = list(tensors_in((args, kwargs)))

        return self._record_call(
            "call_module", path, path.rpartition(".")[2], args, kwargs, tensors, lambda: module(*args, **kwargs),
            random=True,
        )  # fmt: skip

    def output(self, template: Any, tensors: list[Tensor]) -> None:
        """Record what the model returned."""
        self.graph.output(tuple(self.node_of(tensor) for tensor in tensors))
        self.graph.output_node().meta["template"] = template

    def paused(self) -> _Paused:
        """Return a context in which nothing is recorded."""
        return _Paused(self)

    def _pretend(self, name: str) -> Any:
        """Answer questions about the device as the model's own tensors would."""
        return self._device if name == "device" else self._device.type == name.removeprefix("is_")

    # Attributes and sizes --------------------------------------------------------------------------------------

    def _attribute(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        value = func(*args, **kwargs)
        tensor = args[0]
        if isinstance(value, Tensor):
            if name == "grad":
                return value
            return self._record_function(func, name, args, kwargs, [tensor])
        if name not in _SIZE_NAMES or not self._is_recorded(tensor):
            return value
        node = self._record(tensor).node.name
        leaves = [TracedInt.make(int(n), ("size", node, dim), self._log) for dim, n in enumerate(tensor.shape)]
        if name in ("numel", "nelement"):
            product: Any = 1
            for leaf in leaves:
                product = leaf * product
            return product
        if name == "size" and (len(args) > 1 or kwargs):
            return leaves[args[1] if len(args) > 1 else kwargs["dim"]]
        return torch.Size(leaves)

    def _log(self, condition: tuple[Any, ...], outcome: bool) -> None:  # noqa: FBT001
        if not self._paused:
            self.guards.append(Guard(condition, outcome, _caller()))

    # Recording -------------------------------------------------------------------------------------------------

    def _record_function(self, func: Any, name: str, args: Any, kwargs: Any, tensors: list[Tensor]) -> Any:
        if name == "__setitem__":
            return self._record_setitem(func, args, tensors)
        if is_property(func):
            target: tuple[str, Any] = ("call_function", getattr)
            recorded: tuple[Any, ...] = (args[0], name)
        elif type(func).__name__ in ("method_descriptor", "wrapper_descriptor"):
            target, recorded = ("call_method", name), args
        else:
            target, recorded = ("call_function", func), args
        return self._record_call(
            *target, canonical(name), recorded, kwargs, tensors,
            lambda: run(func, name, args, kwargs), random=name in RANDOM
        )  # fmt: skip

    def _record_call(
        self, op: str, target: Any, name: str, args: Any, kwargs: Any, tensors: list[Tensor],
        execute: Callable[[], Any], *, random: bool,
    ) -> Any:  # fmt: skip
        nodes = {id(tensor): self.node_of(tensor) for tensor in tensors}
        chains = {id(tensor): self._base_nodes(tensor) for tensor in tensors if self._is_recorded(tensor)}
        before = [(tensor, tensor._version) for tensor in tensors]
        self._keep_constants(op, target, tensors)
        with self.paused():
            result = execute()
        node = self._node(op, target, _with_nodes(args, nodes), _with_nodes(kwargs, nodes), name)
        constant = not random and (name in CREATION or all(n.meta["constant"] for n in nodes.values()))
        self._adopt(result, node, name, args, kwargs, tensors, constant=constant)
        written = [tensor for tensor, version in before if tensor._version != version]
        if written:
            self._write_back(written, node, name, result, chains)
        return result

    def _record_setitem(self, func: Any, args: Any, tensors: list[Tensor]) -> None:
        target = args[0]
        chain = self._base_nodes(target) if self._is_recorded(target) else []
        nodes = {id(tensor): self.node_of(tensor) for tensor in tensors}
        self._keep_constants("call_method", "__setitem__", [target])
        with self.paused():
            run(func, "__setitem__", args, {})
        items = args[1] if isinstance(args[1], tuple) else (args[1],)
        recorded = _with_nodes((target, items, args[2]), nodes)
        node = self._node("call_function", set_index, recorded, {}, "set_index")
        self._describe(node, target, constant=all(n.meta["constant"] for n in nodes.values()))
        self._rebind(target, node, chain)

    def _adopt(
        self, result: Any, node: fx.Node, name: str, args: Any, kwargs: Any, tensors: list[Tensor], *, constant: bool
    ) -> None:
        """Attach ``node`` to the tensor it returned, or one ``getitem`` node to each of several."""
        if isinstance(result, Tensor):
            self._attach(result, node, name, args, kwargs, tensors, None)
            self._describe(node, result, constant=constant)
            return
        node.meta.update(constant=constant, result=type(result).__name__)
        if not isinstance(result, (tuple, list)):
            node.meta["opaque"] = result
            return
        for item, value in enumerate(result):
            if isinstance(value, Tensor):
                picked = self._node("call_function", pick, (node, item), {}, "getitem")
                self._attach(value, picked, name, args, kwargs, tensors, item)
                self._describe(picked, value, constant=constant)
        node.meta["length"] = len(result)

    def _attach(
        self, value: Tensor, node: fx.Node, name: str, args: Any, kwargs: Any, tensors: list[Tensor], item: int | None
    ) -> None:
        base = next((t for t in tensors if t is not value and _is_view(value, t)), None)
        if base is None:
            known = self._record(value).view if self._is_recorded(value) else None
            self._own(value, node, known)
            return
        position = next((i for i, argument in enumerate(args) if argument is base), None)
        rest = tuple(a for i, a in enumerate(args) if i != position)
        view = View(base, _replayer(self.graph, node, position), name, rest, kwargs, item)
        self._own(value, node, view)

    # Writes ----------------------------------------------------------------------------------------------------

    def _write_back(
        self, written: list[Tensor], node: fx.Node, name: str, result: Any, chains: dict[int, list[fx.Node]]
    ) -> None:
        for tensor in written:
            if tensor is result or (name not in _STATISTICS and len(written) == 1):
                self._rebind(tensor, node, chains.get(id(tensor), []))
            elif name in _STATISTICS and id(tensor) in self._held:
                self._record(tensor).version = tensor._version
            else:
                self._fail(f"{name} writes into an argument that it does not return")

    def _rebind(self, tensor: Tensor, node: fx.Node, chain: list[fx.Node]) -> None:
        """Make ``node`` the value of ``tensor``, and put it back into everything the tensor is a view of."""
        record = self._record(tensor)
        record.node, record.version = node, tensor._version
        self._note_state(tensor, node)
        while record.view is not None:
            view, old = record.view, chain.pop(0)
            scatter = WRITE_BACK.get(view.name)
            if scatter is None:
                self._fail(f"an in-place write goes through {view.name}, a view that cannot be written back")
            how, what = scatter(view, tuple(view.base.shape))
            node = self._scattered(how, what, old, node)
            self._describe(node, view.base, constant=node.all_input_nodes[0].meta["constant"] and all(
                n.meta["constant"] for n in node.all_input_nodes))  # fmt: skip
            record = self._record(view.base)
            record.node, record.version = node, view.base._version
            self._note_state(view.base, node)

    def _scattered(self, how: str, what: Any, old: fx.Node, node: fx.Node) -> fx.Node:
        if how == "set":
            items = _with_nodes(what, {id(t): self.node_of(t) for t in tensors_in(what)})
            return self._node("call_function", set_index, (old, items, node), {}, "set_index")
        return self._node("call_method", how, (node, what), {}, how)

    def _base_nodes(self, tensor: Tensor) -> list[fx.Node]:
        """Return the nodes of what ``tensor`` is a view of, innermost first, as they are before a write."""
        nodes = []
        record = self._record(tensor)
        while record.view is not None:
            nodes.append(self.node_of(record.view.base))
            record = self._record(record.view.base)
        return nodes

    def _note_state(self, tensor: Tensor, node: fx.Node) -> None:
        held = self._held.get(id(tensor))
        if held is not None:
            if held[2]:
                self._fail(f"the model overwrites its parameter {held[1]!r} in forward")
            self.state[held[1]] = tensor
            node.meta["writes"] = held[1]

    def _keep_constants(self, op: str, target: Any, tensors: list[Tensor]) -> None:
        """Copy the value of constants that an in-place call is about to change."""
        if op != "call_method" or not str(target).endswith("_"):
            return
        for tensor in tensors[:1]:
            node = self._record(tensor).node
            if node.meta.get("value") is tensor:
                node.meta["value"] = tensor.clone()

    # Nodes and records -----------------------------------------------------------------------------------------

    def node_of(self, tensor: Tensor) -> fx.Node:
        """Return the node whose value ``tensor`` has now, replaying its view if the base was written since."""
        if not self._is_recorded(tensor):
            self._adopt_foreign(tensor)
        record = self._record(tensor)
        if record.version != tensor._version:
            if record.view is None:
                self._fail("a tensor was changed in place through an alias that the trace does not know")
            record.node = record.view.call(self.node_of(record.view.base))
            self._describe(record.node, tensor, constant=record.node.all_input_nodes[0].meta["constant"])
            record.version = tensor._version
        return record.node

    def _adopt_foreign(self, tensor: Tensor) -> None:
        """Record a tensor that no recorded call made: a parameter, a buffer, or one built elsewhere."""
        held = self._held.get(id(tensor))
        is_parameter = held[2] if held else isinstance(tensor, nn.Parameter)
        name = held[1] if held else f"constant_{len(self.constants)}"
        self.constants[name] = tensor
        node = self._node("get_attr", name, (), {}, name.rpartition(".")[2])
        node.meta["held"] = "parameter" if is_parameter else "buffer" if held else "constant"
        self._own(tensor, node)
        self._describe(node, tensor, constant=not is_parameter)

    def _node(self, op: str, target: Any, args: Any, kwargs: Any, name: str) -> fx.Node:
        node = self.graph.create_node(op, target, args, kwargs, name=name)
        node.meta.update(function=name, module=self.modules[-1] if self.modules else "", source=_caller())
        return node

    @staticmethod
    def _describe(node: fx.Node, value: Tensor, *, constant: bool) -> None:
        node.meta.update(shape=tuple(int(n) for n in value.shape), dtype=value.dtype, constant=constant)
        if constant:
            node.meta["value"] = value

    def _own(self, tensor: Tensor, node: fx.Node, view: View | None = None) -> None:
        tensor.__dict__[_KEY] = TensorRecord(self, node, tensor._version, view)
        self.touched.append(tensor) if id(tensor) in self._held else None

    def _is_recorded(self, tensor: Tensor) -> bool:
        record = tensor.__dict__.get(_KEY)
        return record is not None and record.trace is self

    def _record(self, tensor: Tensor) -> TensorRecord:
        return tensor.__dict__[_KEY]  # type: ignore[no-any-return]

    def close(self) -> None:
        """Forget the model's own tensors."""
        for tensor in self.touched:
            tensor.__dict__.pop(_KEY, None)

    # Errors ----------------------------------------------------------------------------------------------------

    def _refuse_escape(self, name: str, tensors: list[Tensor]) -> None:
        if all(self.node_of(tensor).meta["constant"] for tensor in tensors):
            return
        self._fail(f"the model takes a Python value out of a computed tensor ({name.strip('_')}), so its path "
                   "depends on the data")  # fmt: skip

    def _fail(self, what: str) -> None:
        where = f"module {self.modules[-1]!r}" if self.modules and self.modules[-1] else "the model itself"
        message = f"{what}, in {where}, at {_caller()}; register the enclosing module as atomic (atomic_modules=)"
        raise TraceError(message)


class _Paused:
    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __enter__(self) -> None:
        self._recorder._paused += 1

    def __exit__(self, *_: object) -> None:
        self._recorder._paused -= 1


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Iterate over the tensors inside nested containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, slice):
        yield from tensors_in((value.start, value.stop, value.step))


def _with_nodes(value: Any, nodes: dict[int, fx.Node]) -> Any:
    if isinstance(value, Tensor):
        return nodes[id(value)]
    if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        return type(value)([_with_nodes(item, nodes) for item in value])
    if isinstance(value, dict):
        return {key: _with_nodes(item, nodes) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*(_with_nodes(item, nodes) for item in (value.start, value.stop, value.step)))
    return value


def _is_view(value: Tensor, other: Tensor) -> bool:
    base = value._base
    return base is not None and (base is other or base is other._base)


def _replayer(graph: fx.Graph, node: fx.Node, position: int | None) -> Callable[[fx.Node], fx.Node]:
    """Return a function that records the same view call, on another base."""

    def replay(base: fx.Node) -> fx.Node:
        source = node.args[0] if node.target is pick else node
        args = list(source.args)  # type: ignore[union-attr]
        args[position or 0] = base
        again = graph.create_node(source.op, source.target, tuple(args), source.kwargs, name=source.name)  # type: ignore[union-attr]
        again.meta.update(source.meta)  # type: ignore[union-attr]
        if source is node:
            return again
        picked = graph.create_node("call_function", pick, (again, node.args[1]), {}, name=node.name)
        picked.meta.update(node.meta)
        return picked

    return replay


def _caller() -> str:
    """Return ``file:line`` of the innermost frame outside torch and this package."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_LIBRARY_FOLDERS):
        frame = frame.f_back
    return "unknown" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"
