"""In-place calls made functional: what a write makes of the tensor it goes to, and of everything that aliases it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from torch_dag_core.tracing.aliasing import WRITE_BACK, View, pick, set_index
from torch_dag_core.tracing.execution import run, writes
from torch_dag_core.tracing.ledger import Ledger, tensors_in, with_nodes
from torch_dag_core.tracing.tensor_content import storage_of

_STATISTICS = frozenset({"batch_norm", "instance_norm"})
_WITHOUT_GRADIENT = frozenset({"data", "detach"})


class Writes(Ledger):
    """The part of a recorder that follows memory."""

    # Views -----------------------------------------------------------------------------------------------------

    def _attach(
        self, value: Tensor, node: fx.Node, call: tuple[str, Any, Any], tensors: list[Tensor], item: int | None
    ) -> None:
        """Make ``node`` the value of a fresh tensor, and note which operand it is a view of."""
        storage = storage_of(value)
        base = next((t for t in tensors if t is not value and storage_of(t) == storage), None)
        if base is None:
            self._own(value, node)
            return
        name, args, kwargs = call
        position = next((i for i, argument in enumerate(args) if argument is base), None)
        rest = tuple(a for i, a in enumerate(args) if i != position)
        self._own(value, node, View(base, _replayer(self.graph, node, position), name, rest, kwargs, item))

    @staticmethod
    def _distinct(result: Any, tensors: list[Tensor]) -> Any:
        """Return ``result`` with an alias in place of every operand that was handed back as it is."""
        operands = {id(tensor) for tensor in tensors}
        if isinstance(result, Tensor):
            return torch.ops.aten.alias.default(result) if id(result) in operands else result
        if type(result) in (tuple, list) and any(id(item) in operands for item in result):
            return type(result)(Writes._distinct(item, tensors) for item in result)
        return result

    # Writes ----------------------------------------------------------------------------------------------------

    def _record_setitem(self, args: Any) -> None:
        target, items, value = args
        nodes = {id(tensor): self.node_of(tensor) for tensor in tensors_in(args)}
        chain = self._base_nodes(target)
        self._keep_values("__setitem__", [target])
        with self.paused(), torch.no_grad():
            run(Tensor.__setitem__, "__setitem__", args, {})
        items = items if isinstance(items, tuple) else (items,)
        node = self._node("call_function", set_index, with_nodes((target, items, value), nodes), {}, "set_index")
        self._describe(node, target, constant=all(n.meta["constant"] for n in nodes.values()))
        self._rebind(target, node, chain)

    def _write_back(
        self, written: list[Tensor], node: fx.Node, name: str, result: Any, chains: dict[int, list[fx.Node]]
    ) -> None:
        """Follow the writes of one call: what it returned is the new value of the tensor it returned."""
        for storage, tensor in {storage_of(t): t for t in reversed(written)}.items():
            if isinstance(result, Tensor) and storage_of(result) == storage and id(result) in chains:
                self._rebind(result, node, chains[id(result)])
            elif name not in _STATISTICS or id(tensor) not in self._held:
                self.fail(f"{name} writes into an argument that it does not return")

    def _rebind(self, tensor: Tensor, node: fx.Node, chain: list[fx.Node]) -> None:
        """Make ``node`` the value of ``tensor``, and put it back into everything the tensor is a view of."""
        storage = storage_of(tensor)
        version = self._versions[storage] = self._versions.get(storage, 0) + 1
        record = self._record(tensor)
        before = chain[-1] if chain else record.node
        node = self._as_type(node, tensor)
        record.node, record.version = node, version
        views = []
        while record.view is not None:
            view, old = record.view, chain.pop(0)
            views.append(view.name)
            node = self._scattered(view, tensor, old, node)
            constant = all(n.meta["constant"] for n in node.all_input_nodes)
            tensor, record = view.base, self._record(view.base)
            self._describe(node, tensor, constant=constant)
            record.node, record.version = node, version
        self._note_state(tensor, node, views, before)

    def _as_type(self, node: fx.Node, tensor: Tensor) -> fx.Node:
        """Return the node cast to the type of the tensor that is written, which keeps its own."""
        if node.meta["dtype"] == tensor.dtype:
            return node
        cast = self._node("call_method", "to", (node, tensor.dtype), {}, "to")
        self._describe(cast, tensor, constant=node.meta["constant"])
        return cast

    def _scattered(self, view: View, tensor: Tensor, old: fx.Node, node: fx.Node) -> fx.Node:
        scatter = WRITE_BACK.get(view.name)
        if scatter is not None:
            how, what = scatter(view, tuple(view.base.shape))
        elif _same_order(tensor, view.base):
            how, what = "reshape", tuple(view.base.shape)
        else:
            self.fail(f"an in-place write goes through {view.name}, a view that cannot be written back")
        if how == "set":
            items = with_nodes(what, {id(t): self.node_of(t) for t in tensors_in(what)})
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

    def _note_state(self, tensor: Tensor, node: fx.Node, views: list[str], before: fx.Node) -> None:
        """Note a write that reached the model's own memory; refuse one that gradients would not follow."""
        held = self._held.get(id(tensor))
        if held is not None and held[2]:
            self.fail(f"the model overwrites its parameter {held[1]!r} in forward")
        if held is not None:
            self.state[held[1]] = tensor
            node.meta["writes"] = held[1]
        elif id(tensor) in self._kept:
            path = self._kept[id(tensor)][1]
            self.fail(f"the model overwrites the tensor {path!r}, which is not a buffer; make it one")
        elif self._is_hidden(views, before) and not before.meta["constant"]:
            self.fail("the model writes into a tensor behind the back of autograd (through data, detach or no_grad)")
        elif self.is_foreign(tensor):
            self.overwritten.append(tensor)

    @staticmethod
    def _is_hidden(views: list[str], before: fx.Node) -> bool:
        """Tell whether gradients flow past a write as if it had not been made."""
        if not before.meta["gradient"]:
            return False
        return not torch.is_grad_enabled() or not _WITHOUT_GRADIENT.isdisjoint(views)

    def _keep_values(self, name: str, tensors: list[Tensor]) -> None:
        """Copy the values of constants that a call is about to change, for the nodes that had them before."""
        if not writes(name):
            return
        for tensor in tensors:
            if not tensor.is_meta:
                if self.is_foreign(tensor):
                    self.hold(tensor)
                for node in self._valued.pop(storage_of(tensor), ()):
                    if node.op != "get_attr" or node.meta["held"] == "constant":
                        node.meta["value"] = node.meta["value"].clone()

    def paused(self) -> Paused:
        """Return a context in which nothing is recorded."""
        return Paused(self)


class Paused:
    """Calls inside the context are run, not recorded."""

    def __init__(self, recorder: Ledger) -> None:
        self._recorder = recorder

    def __enter__(self) -> None:
        self._recorder._paused += 1

    def __exit__(self, *_: object) -> None:
        self._recorder._paused -= 1


def _same_order(tensor: Tensor, base: Tensor) -> bool:
    """Tell whether both hold the same elements in the same order."""
    if (tensor.numel(), tensor.storage_offset(), tensor.dtype) != (base.numel(), base.storage_offset(), base.dtype):
        return False
    same_layout = (tensor.shape, tensor.stride()) == (base.shape, base.stride())
    return same_layout or (tensor.is_contiguous() and base.is_contiguous())


def _replayer(graph: fx.Graph, node: fx.Node, position: int | None) -> Callable[[fx.Node], fx.Node]:
    """Return a function that records the same view call, on another base."""

    def replay(base: fx.Node) -> fx.Node:
        source: Any = node.args[0] if node.target is pick else node
        args = list(source.args)
        args[position or 0] = base
        again = graph.create_node(source.op, source.target, tuple(args), source.kwargs, name=source.name)
        again.meta.update(source.meta)
        if source is node:
            return again
        picked = graph.create_node("call_function", pick, (again, node.args[1]), {}, name=node.name)
        picked.meta.update(node.meta)
        return picked

    return replay
