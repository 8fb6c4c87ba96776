"""What a trace knows: the nodes recorded so far, and which node each tensor is the value of."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn

import torch
from torch import Tensor, fx, nn

from torch_dag_core.errors import TraceError
from torch_dag_core.tracing.aliasing import TensorRecord, View
from torch_dag_core.tracing.sizes import Guard
from torch_dag_core.tracing.tensor_content import storage_of

_LIBRARY_FOLDERS = (f"{Path(torch.__file__).parent}{os.sep}", f"{Path(__file__).parents[1]}{os.sep}")
_KEY = "_torch_dag_record"

USE_ATOMIC = "register the enclosing module as atomic (atomic_modules=)"


class Ledger:
    """Nodes and tensor records of one trace; tensors carry their record as an attribute for its length.

    A record is current while the storage of its tensor has not been written since; every write, through whichever
    alias, gives the storage a new version.

    Attributes:
        constants: Tensors that no recorded call made, by the target of their ``get_attr`` node.
        state: Buffers that the model overwrites, by name.
        escapes: Constants that became Python values, with the error to raise if they are none after all.
        size_lost: Whether a size became an ordinary number, on which decisions go unseen.
        overwritten: Tensors that no recorded call made, and that the model wrote to without holding them as buffers.
        earlier: The ledger of a run before this one, from which the model's Python state was carried over.
        hold: Called with every tensor from outside of the trace before it is written to.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.graph = fx.Graph()
        self.guards: list[Guard] = []
        self.modules: list[str] = []
        self.constants: dict[str, Tensor] = {}
        self.state: dict[str, Tensor] = {}
        self.size_lost = False
        self.escapes: list[tuple[fx.Node, str]] = []
        self.overwritten: list[Tensor] = []
        self.earlier: Ledger | None = None
        self.hold: Callable[[Tensor], None] = lambda _: None
        self._paused = 0
        self._touched: list[Tensor] = []
        self._foreign: set[int] = set()
        self._versions: dict[int, int] = {}
        self._valued: dict[int, list[fx.Node]] = {}
        self._held: dict[int, tuple[Tensor, str, bool]] = {}
        self._kept: dict[int, tuple[Tensor, str]] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            self._held.setdefault(id(parameter), (parameter, name, True))
        for name, buffer in model.named_buffers(remove_duplicate=False):
            self._held.setdefault(id(buffer), (buffer, name, False))
        self._parameters: dict[nn.Module, list[int]] = {}
        for path, module in model.named_modules():
            self._parameters[module] = [id(tensor) for tensor in module._parameters.values()]
            for name, value in vars(module).items():
                if isinstance(value, Tensor):
                    self._kept[id(value)] = (value, f"{path}.{name}" if path else name)

    # Tensors ---------------------------------------------------------------------------------------------------

    def node_of(self, tensor: Tensor) -> fx.Node:
        """Return the node whose value ``tensor`` has now, replaying its view if the base was written since."""
        if not self._is_recorded(tensor):
            self._adopt_foreign(tensor)
        record = self._record(tensor)
        version = self._version_of(tensor)
        if record.version != version:
            if record.view is None:
                self.fail("a tensor was changed in place through an alias that the trace does not know")
            record.node = record.view.call(self.node_of(record.view.base))
            self._describe(record.node, tensor, constant=record.node.all_input_nodes[0].meta["constant"])
            record.version = version
        if record.node.meta["gradient"] is False and torch.is_grad_enabled():
            record.node = self._detached(record.node, tensor)
        return record.node

    def _detached(self, node: fx.Node, tensor: Tensor) -> fx.Node:
        """Return the node as code outside ``no_grad`` sees it."""
        if node.meta["constant"] or not (tensor.is_floating_point() or tensor.is_complex()):
            return node
        detached = self._node("call_method", "detach", (node,), {}, "detach")
        self._describe(detached, tensor, constant=False)
        return detached

    def is_altered(self, module: nn.Module) -> bool:
        """Tell whether a module has other tensors than before the trace, as `torch.func.functional_call` arranges."""
        for part in module.modules():
            if [id(tensor) for tensor in part._parameters.values()] != self._parameters.get(part):
                return True
            others = (value for values in (part._buffers, vars(part)) for value in values.values())
            if any(isinstance(v, Tensor) and id(v) not in self._held and self._is_recorded(v) for v in others):
                return True
        return False

    def _adopt_foreign(self, tensor: Tensor) -> None:
        """Record a tensor that no recorded call made: a parameter, a buffer, or one built elsewhere."""
        held = self._held.get(id(tensor))
        is_parameter = held[2] if held else isinstance(tensor, nn.Parameter)
        carried = None if held or self.earlier is None else self.earlier.computed(tensor)
        if held is None and tensor.is_meta and carried is None:
            self.fail("a tensor comes from a call that the trace cannot see")
        name = held[1] if held else f"constant_{len(self.constants)}"
        self.constants[name] = tensor
        self._foreign.add(id(tensor))
        self._touched.append(tensor)
        node = self._node("get_attr", name, (), {}, name.rpartition(".")[2])
        node.meta.update(held="parameter" if is_parameter else "buffer" if held else "constant")
        node.meta.update(gradient=True, owner=tensor)
        if carried is not None:
            node.meta["carried"] = carried
        self._own(tensor, node)
        self._describe(node, tensor, constant=not is_parameter and (carried is None or carried.meta["constant"]))

    def computed(self, tensor: Tensor) -> fx.Node | None:
        """Return the node whose value a tensor has; None for one that this trace neither made nor wrote to."""
        if not self._is_recorded(tensor):
            return None
        node = self._record(tensor).node
        return None if node.op == "get_attr" else node

    def _own(self, tensor: Tensor, node: fx.Node, view: View | None = None) -> None:
        tensor.__dict__[_KEY] = TensorRecord(self, node, self._version_of(tensor), view)

    def _is_recorded(self, tensor: Tensor) -> bool:
        record = tensor.__dict__.get(_KEY)
        return record is not None and record.trace is self

    def _record(self, tensor: Tensor) -> TensorRecord:
        return tensor.__dict__[_KEY]  # type: ignore[no-any-return]

    def _version_of(self, tensor: Tensor) -> int:
        return self._versions.get(storage_of(tensor), 0)

    def is_foreign(self, tensor: Tensor) -> bool:
        """Tell whether a recorded tensor, or what it is a view of, comes from outside of the trace."""
        record = self._record(tensor)
        while record.view is not None:
            tensor = record.view.base
            record = self._record(tensor)
        return id(tensor) in self._foreign

    def stop(self) -> None:
        """Record nothing from now on, such as comparisons of sizes that the model stored somewhere."""
        self._paused += 1

    def settle(self) -> None:
        """Give the constants that live in overwritten tensors a memory of their own, before it is restored."""
        for tensor in self.overwritten:
            for node in self._valued.pop(storage_of(tensor), ()):
                node.meta["value"] = node.meta["value"].clone()

    def close(self) -> None:
        """Forget the tensors that outlive the trace."""
        for tensor in self._touched:
            tensor.__dict__.pop(_KEY, None)

    # Nodes -----------------------------------------------------------------------------------------------------

    def _node(self, op: str, target: Any, args: Any, kwargs: Any, name: str) -> fx.Node:
        node = self.graph.create_node(op, target, args, kwargs, name=name)
        module = self.modules[-1] if self.modules else ""
        node.meta.update(function=name, module=module, source=caller(), gradient=torch.is_grad_enabled())
        return node

    def _describe(self, node: fx.Node, value: Tensor, *, constant: bool) -> None:
        node.meta.update(shape=tuple(int(n) for n in value.shape), dtype=value.dtype, constant=constant)
        if constant:
            node.meta["value"] = value
            self._valued.setdefault(storage_of(value), []).append(node)

    # Errors ----------------------------------------------------------------------------------------------------

    def fail(self, what: str) -> NoReturn:
        """Raise the `TraceError` that names module, file and line, and the way out."""
        raise TraceError(self._complaint(what))

    def _complaint(self, what: str) -> str:
        return f"{what}, in {self.where}, at {caller()}; {USE_ATOMIC}"

    @property
    def where(self) -> str:
        """The module that is running, in words."""
        return f"module {self.modules[-1]!r}" if self.modules and self.modules[-1] else "the model itself"


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


def with_nodes(value: Any, nodes: dict[int, fx.Node]) -> Any:
    """Return ``value`` with its tensors replaced by nodes."""
    if isinstance(value, Tensor):
        return nodes[id(value)]
    if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        return type(value)([with_nodes(item, nodes) for item in value])
    if isinstance(value, dict):
        return {key: with_nodes(item, nodes) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*(with_nodes(item, nodes) for item in (value.start, value.stop, value.step)))
    return value


def caller() -> str:
    """Return ``file:line`` of the innermost frame outside torch and this package."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_LIBRARY_FOLDERS):
        frame = frame.f_back
    return "unknown" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def origin(trace: TracebackType | None) -> str:
    """Return ``file:line`` of the innermost frame of a traceback outside torch and this package."""
    place = "unknown"
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith(_LIBRARY_FOLDERS):
            place = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
