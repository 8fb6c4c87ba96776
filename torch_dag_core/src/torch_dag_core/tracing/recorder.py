"""The function mode that turns every torch call into a `torch.fx` node while the model really runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode, _pop_mode_temporarily

from torch_dag_core.graph.op import Op
from torch_dag_core.tracing.aliasing import apply_op, pick
from torch_dag_core.tracing.execution import CREATION, run, run_module
from torch_dag_core.tracing.ledger import caller, tensors_in, with_nodes
from torch_dag_core.tracing.names import ESCAPES, RANDOM, canonical, is_property, renamed, sizing_operands, spelling
from torch_dag_core.tracing.sizes import Guard, TracedInt, plain
from torch_dag_core.tracing.tensor_content import version_of
from torch_dag_core.tracing.writes import Writes

_SIZE_NAMES = frozenset({"shape", "size", "numel", "nelement"})
_PRETENDED = frozenset({"device", "is_cuda", "is_meta", "is_cpu", "is_mps", "is_xpu"})
_UNRECORDED = ("_set_grad", "_is_", "is_", "_has", "set ", "requires_grad", "_autocast")
_AUTOCAST = ("cpu", "cuda")


class _Invocation(NamedTuple):
    """One call as the graph records it; ``state`` are tensors besides the arguments that it may change."""

    op: str
    target: Any
    name: str
    args: Any
    kwargs: Any
    state: tuple[Tensor, ...] = ()


class Recorder(Writes, TorchFunctionMode):
    """Records calls into ``graph``."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__(model)
        self._device = device
        self._autocast = _autocast_state()

    # Entry points ----------------------------------------------------------------------------------------------

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the call, and record it unless the trace is inside a leaf."""
        kwargs = renamed(kwargs or {})
        name = spelling(func)
        if self._paused:
            return run(func, name, args, kwargs)
        if name in _PRETENDED:
            return self._pretend(name)
        special = _SPECIAL.get(name)
        if special is not None:
            return special(self, func, args)
        if is_property(func) or name in _SIZE_NAMES:
            return self._attribute(func, name, args, kwargs)
        if name.startswith(_UNRECORDED) and name not in ESCAPES:
            return func(*args, **kwargs)
        return self._take(func, name, plain(args), plain(kwargs))

    def _take(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        if name in ESCAPES:
            self._refuse_escape(name, list(tensors_in((args, kwargs))))
            return func(*args, **kwargs)
        if not self._is_constant(sizing_operands(name, args, kwargs)):
            self.fail(f"the size of what {name.strip('_')} returns depends on the data")
        if isinstance(kwargs.get("out"), Tensor):
            return self._into(kwargs.pop("out"), func, name, args, kwargs)
        return self._record_function(func, name, args, kwargs)

    def _into(self, out: Tensor, func: Any, name: str, args: Any, kwargs: Any) -> Tensor:
        """Record ``func(..., out=out)`` as a call and a copy."""
        result = self._take(func, name, args, kwargs)
        if result.shape != out.shape:
            self.fail(f"{name} is given an out= of another shape than its result")
        return self._take(Tensor.copy_, "copy_", (out, result), {})  # type: ignore[no-any-return]

    def input(self, name: str, value: Tensor) -> None:
        """Record one input tensor."""
        node = self._node("placeholder", name, (), {}, name)
        self._own(value, node)
        self._describe(node, value, constant=False)

    def call_leaf(self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run a leaf module as one recorded call."""
        args, kwargs = plain(args), plain(kwargs)
        name = path.rpartition(".")[2] or type(module).__name__.lower()
        call = _Invocation("call_module", path, name, args, kwargs, tuple(module.buffers()))
        with _pop_mode_temporarily():
            return self._record_call(call, lambda: self._watched(run_module, module, args, kwargs), random=True)

    def _watched(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function under the mode again, for what `run` does for the calls inside."""
        with self:
            return function(*args)

    def call_op(self, module: Op, args: tuple[Any, ...]) -> Any:
        """Run an op that is no part of the model, but of a function that stands in for one, as one call."""
        recorded = (type(module), plain(tuple(module.config().values())), *args)
        call = _Invocation("call_function", apply_op, type(module).__name__, recorded, {})
        with _pop_mode_temporarily():
            return self._record_call(call, lambda: self._watched(module, *args), random=True)

    def output(self, template: Any, tensors: list[Tensor]) -> None:
        """Record what the model returned."""
        self.graph.output(tuple(self.node_of(tensor) for tensor in tensors))
        self.graph.output_node().meta["template"] = template

    def reassigned(self, name: str, before: Tensor, tensor: Tensor) -> None:
        """Record that the buffer ``name`` is another tensor now; one of another size is kept by the model alone."""
        if tensor.shape != before.shape:
            self.attribute_changed(name, before)
            return
        node = self._node("call_method", "clone", (self.node_of(tensor),), {}, "clone")
        self._describe(node, tensor, constant=node.all_input_nodes[0].meta["constant"])
        self.state[name] = tensor
        node.meta["writes"] = name

    def attribute_changed(self, path: str, before: Any) -> None:
        """Refuse a tensor attribute, not a buffer, that the model read and then replaced."""
        if isinstance(before, Tensor) and any(before is constant for constant in self.constants.values()):
            self.fail(f"the model keeps a tensor in {path!r} from one call to the next; make it a buffer")

    def _pretend(self, name: str) -> Any:
        """Answer questions about the device as the model's own tensors would."""
        return self._device if name == "device" else self._device.type == name.removeprefix("is_")

    # Attributes and sizes --------------------------------------------------------------------------------------

    def _attribute(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        value = func(*args, **kwargs)
        tensor = args[0]
        if isinstance(value, Tensor):
            return value if name == "grad" else self._record_function(func, name, args, kwargs)
        if name not in _SIZE_NAMES or not self._is_recorded(tensor):
            return value
        node = self._record(tensor).node.name
        leaves = [self._traced(int(n), ("size", node, dim)) for dim, n in enumerate(tensor.shape)]
        if name in ("numel", "nelement"):
            product: Any = 1
            for leaf in leaves:
                product = leaf * product
            return product
        if name == "size" and (len(args) > 1 or kwargs):
            return leaves[args[1] if len(args) > 1 else kwargs["dim"]]
        return torch.Size(leaves)

    def _traced(self, value: int, expression: Any) -> TracedInt:
        return TracedInt.make(value, expression, self._log)

    def _log(self, condition: tuple[Any, ...] | None, outcome: bool) -> None:  # noqa: FBT001
        if self._paused:
            return
        if condition is None:
            self.size_lost = True
        else:
            self.guards.append(Guard(condition, outcome, caller()))

    def _length(self, func: Any, args: Any) -> int:
        self.size_lost = True
        return int(func(*args))

    def _rows(self, _: Any, args: Any) -> Any:
        return iter(self._take(Tensor.unbind, "unbind", (args[0], 0), {}))

    def _replace_data(self, *_: Any) -> None:
        self.fail("the model assigns to the data of a tensor")

    # Recording -------------------------------------------------------------------------------------------------

    def _record_function(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        if name == "__setitem__":
            return self._record_setitem(args)
        if is_property(func):
            target: tuple[str, Any] = ("call_function", getattr)
            recorded: tuple[Any, ...] = (args[0], name)
        elif type(func).__name__ in ("method_descriptor", "wrapper_descriptor"):
            target, recorded = ("call_method", name), args
        else:
            target, recorded = ("call_function", func), args
        if name == "where" and func is not torch.where and len(args) > 1:
            target, recorded = ("call_function", torch.where), (args[1], args[0], *args[2:])
        call = _Invocation(*target, name, recorded, kwargs)
        return self._record_call(call, lambda: run(func, name, args, kwargs), random=name in RANDOM)

    def _record_call(self, call: _Invocation, execute: Callable[[], Any], *, random: bool) -> Any:
        tensors, is_leaf = list(tensors_in((call.args, call.kwargs))), call.op == "call_module"
        if _autocast_state() != self._autocast:
            self.fail("the model switches autocast, which a graph leaves to its caller")
        nodes = {id(tensor): self.node_of(tensor) for tensor in tensors}
        chains = {id(tensor): self._base_nodes(tensor) for tensor in tensors}
        before = [(tensor, version_of(tensor)) for tensor in tensors]
        state = [(tensor, version_of(tensor)) for tensor in call.state]
        self._keep_values("leaf_" if is_leaf else call.name, tensors)
        with self.paused(), torch.no_grad():
            result = execute()
            written = [tensor for tensor, version in before if version_of(tensor) != version]
            if not written:
                result = self._distinct(result, tensors)
        name = call.name if is_leaf else canonical(call.name)
        node = self._node(call.op, call.target, with_nodes(call.args, nodes), with_nodes(call.kwargs, nodes), name)
        constant = not random and (name in CREATION or all(n.meta["constant"] for n in nodes.values()))
        self._adopt(result, node, (name, call.args, call.kwargs), tensors, constant=constant)
        if _takes_statistics(call) or any(version_of(tensor) != version for tensor, version in state):
            node.meta["changes state"] = True
        if written:
            self._write_back(written, node, name, result, chains)
        return result

    def _adopt(
        self, result: Any, node: fx.Node, call: tuple[str, Any, Any], tensors: list[Tensor], *, constant: bool,
        item: int | None = None,
    ) -> None:  # fmt: skip
        """Attach ``node`` to the tensor it returned, or one ``getitem`` node to each of several, however nested."""
        if isinstance(result, Tensor):
            if all(result is not tensor for tensor in tensors):
                self._attach(result, node, call, tensors, item)
            self._describe(node, result, constant=constant)
            return
        node.meta.update(constant=constant, result=type(result).__name__)
        if not isinstance(result, (tuple, list)):
            return
        node.meta.update(length=len(result), shapes=[_shape(value) for value in result])
        for place, value in enumerate(result):
            if isinstance(value, (Tensor, tuple, list)):
                picked = self._node("call_function", pick, (node, place), {}, "getitem")
                self._adopt(value, picked, call, tensors, constant=constant, item=place)

    # Errors ----------------------------------------------------------------------------------------------------

    def _is_constant(self, tensors: list[Tensor]) -> bool:
        return all(self.node_of(tensor).meta["constant"] for tensor in tensors)

    def _refuse_escape(self, name: str, tensors: list[Tensor]) -> None:
        how = f"({name.strip('_')}), so its path depends on the data"
        what = f"the model takes a Python value out of a {{}} tensor {how}"
        for node in map(self.node_of, tensors):
            if not node.meta["constant"]:
                self.fail(what.format("computed"))
            self.escapes.append((node, self._complaint(what.format("changing"))))


_SPECIAL: dict[str, Callable[[Recorder, Any, Any], Any]] = {
    "__len__": Recorder._length, "__iter__": Recorder._rows, "set data": Recorder._replace_data,
}  # fmt: skip


def _shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _takes_statistics(call: _Invocation) -> bool:
    """Tell whether a batch norm updates running statistics, which are its second and third argument."""
    return call.name == "batch_norm" and call.kwargs.get("training") is True and call.args[1] is not None


def _autocast_state() -> list[bool]:
    return [torch.is_autocast_enabled(device) for device in _AUTOCAST]
