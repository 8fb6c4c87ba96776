"""Several traces of one model held side by side: what differs with size is free, what differs with mode switches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import torch
from torch import Tensor, fx, nn

from torch_dag_core.errors import TraceError
from torch_dag_core.tracing.trace import Trace


class SizeError(TraceError):
    """Something follows the input sizes in a way that a graph cannot state."""


class FreeSize(int):
    """An integer that was another one at other input sizes; only a builder may turn it into a `Size`."""

    other: int

    @classmethod
    def make(cls, value: int, other: int) -> FreeSize:
        """Return ``value``, remembering ``other``."""
        free = cls(value)
        free.other = other
        return free

    def _refuse(self, *_: object) -> Any:
        message = f"arithmetic on a size that follows the inputs ({int(self)} here, {self.other} elsewhere)"
        raise SizeError(message)

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __neg__ = _refuse

    def __repr__(self) -> str:
        return f"FreeSize({int(self)}|{self.other})"


@dataclass(frozen=True)
class ByMode:
    """A constant that differs between evaluation and training."""

    evaluation: Any
    training: Any


@dataclass
class Event:
    """One call as the graph will have it: seen in evaluation, in training, or in both."""

    evaluation: fx.Node | None
    training: fx.Node | None

    @property
    def node(self) -> fx.Node:
        """The node to read names and shapes from."""
        return self.evaluation or self.training  # type: ignore[return-value]


def signature(node: fx.Node) -> tuple[Any, ...]:
    """Return what makes two recorded calls the same call, whatever their constants."""
    operands = tuple(isinstance(argument, fx.Node) for argument in (*node.args, *node.kwargs.values()))
    return (node.op, node.target, node.meta["module"], len(node.args), tuple(node.kwargs), operands)


def same_calls(first: Trace, second: Trace) -> bool:
    """Tell whether two traces made the same calls in the same order, on the same operands."""
    if len(first.nodes) != len(second.nodes):
        return False
    place = {node: i for i, node in enumerate(first.nodes)}
    other = {node: i for i, node in enumerate(second.nodes)}
    return all(
        signature(a) == signature(b) and [place[n] for n in a.all_input_nodes] == [other[n] for n in b.all_input_nodes]
        for a, b in zip(first.nodes, second.nodes, strict=True)
    )


class Sizes:
    """Two traces of one mode at different input sizes, or one where no second could be made."""

    def __init__(self, trace: Trace, resized: Trace | None) -> None:
        self.trace = trace
        self._other: dict[fx.Node, fx.Node] = {}
        if resized is not None:
            if not same_calls(trace, resized):
                message = "the model makes other calls at other input sizes"
                raise SizeError(message)
            if trace.output_template != resized.output_template:
                message = "the model returns a number that follows the input sizes"
                raise SizeError(message)
            self._other = dict(zip(trace.nodes, resized.nodes, strict=True))
        self._by_name = {node.name: node for node in trace.nodes}

    def in_training(self, trace: Trace) -> Sizes:
        """Return the sizes of a training trace that makes the same calls as this one."""
        training = Sizes(trace, None)
        pairs = zip(trace.nodes, self.trace.nodes, strict=True)
        training._other = {node: self._other.get(twin, twin) for node, twin in pairs}
        return training

    def joined(self, node: fx.Node, value: Any, pick: Any) -> Any:
        """Return ``value`` (found in ``node`` by ``pick``) with a `FreeSize` wherever the other trace differs."""
        other = self._other.get(node)
        return value if other is None else join(value, pick(other))

    def shape(self, node: fx.Node) -> tuple[int, ...] | None:
        """Return the shape of the node's tensor."""
        return self.joined(node, node.meta.get("shape"), lambda n: n.meta.get("shape"))  # type: ignore[no-any-return]

    def size(self, name: str, dim: int) -> int:
        """Return one size of a node's tensor, given the node's name."""
        shape = self.shape(self._by_name[name])
        return shape[dim]  # type: ignore[index]

    def same_value(self, node: fx.Node) -> bool:
        """Tell whether a constant has the same value at both sizes."""
        other = self._other.get(node)
        return other is None or _equal(node.meta["value"], other.meta["value"])


def _equal(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, 0, 0, equal_nan=True))


def join(value: Any, other: Any) -> Any:
    """Return ``value`` with a `FreeSize` for every integer that differs from ``other``.

    Raises:
        SizeError: something other than an integer differs.
    """
    if isinstance(value, fx.Node):
        return value
    if isinstance(value, (tuple, list)) and isinstance(other, (tuple, list)) and len(value) == len(other):
        return type(value)([join(a, b) for a, b in zip(value, other, strict=True)])
    if isinstance(value, dict) and isinstance(other, dict) and value.keys() == other.keys():
        return {key: join(item, other[key]) for key, item in value.items()}
    if isinstance(value, slice) and isinstance(other, slice):
        return slice(join(value.start, other.start), join(value.stop, other.stop), join(value.step, other.step))
    if value == other or (value != value and other != other):  # noqa: PLR0124
        return value
    if type(value) is int and type(other) is int:
        return FreeSize.make(value, other)
    message = f"a constant of a call is {value!r} at one input size and {other!r} at another"
    raise SizeError(message)


def merge_modes(evaluation: Trace, training: Trace) -> Iterator[Event]:
    """Yield the calls of both modes in one order; calls that both make stand once."""
    first, second = evaluation.nodes, training.nodes
    if same_calls(evaluation, training):
        yield from map(Event, first, second)
        return
    keys = [[_Key(signature(node)) for node in nodes] for nodes in (first, second)]
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_opcodes():
        if tag == "equal":
            yield from map(Event, first[i1:i2], second[j1:j2])
            continue
        yield from (Event(node, None) for node in first[i1:i2])
        yield from (Event(None, node) for node in second[j1:j2])


class _Key:
    """A signature that hashes once; targets hash by identity."""

    def __init__(self, content: tuple[Any, ...]) -> None:
        self._content, self._hash = content, hash(content)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._content == other._content


def is_persistent(model: nn.Module, buffer: str) -> bool:
    """Tell whether state dicts of the model hold this buffer."""
    owner, _, name = buffer.rpartition(".")
    return name not in model.get_submodule(owner)._non_persistent_buffers_set


def keep_unfolded(trace: Trace, model: nn.Module, state: Collection[str]) -> None:
    """Withdraw the constant mark of everything computed from a buffer that may change.

    That is a buffer which the model overwrites in any mode, and one that a checkpoint may load another value into.

    Raises:
        TraceError: the model decides on the value of a buffer that it overwrites.
    """
    changing, overwritten = set(), set()
    for node in trace.nodes:
        if node.op == "get_attr" and node.meta["held"] == "buffer" and node.meta["constant"]:
            if node.target in state:
                node.meta["constant"] = False
                overwritten.add(node)
            elif not is_persistent(model, str(node.target)):
                continue
            changing.add(node)
        elif node.meta["constant"] and not changing.isdisjoint(node.all_input_nodes):
            changing.add(node)
            node.meta["constant"] = False
            if not overwritten.isdisjoint(node.all_input_nodes):
                overwritten.add(node)
    refused = next((message for node, message in trace.escapes if node in overwritten), None)
    if refused is not None:
        raise TraceError(refused)


def needed_by(nodes: Iterable[fx.Node], is_folded: Callable[[fx.Node], bool]) -> set[fx.Node]:
    """Return these nodes and all that they need; constants need nothing."""
    stack = list(nodes)
    live = set(stack)
    while stack:
        node = stack.pop()
        fresh = [] if is_folded(node) else [n for n in node.all_input_nodes if n not in live]
        live.update(fresh)
        stack.extend(fresh)
    return live
