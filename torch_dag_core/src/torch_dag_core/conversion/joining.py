"""Several traces of one model held side by side: what differs with size is free, what differs with mode switches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from torch_dag_core.errors import TraceError
from torch_dag_core.graph.conditions import OPERATORS
from torch_dag_core.graph.values import constants_in
from torch_dag_core.tracing.sizes import plain
from torch_dag_core.tracing.trace import Trace


class SizeError(TraceError):
    """Something follows the input sizes in a way that a graph cannot state."""


class FreeSize(int):
    """An integer that follows the input sizes; only a builder may turn it into a `Size`.

    Attributes:
        values: Its value in every trace; it is the first of them itself.
        expression: How it was computed, over `SizeOf` leaves; None where that is not known.
    """

    values: tuple[int, ...]
    expression: Any

    @classmethod
    def make(cls, values: tuple[int, ...], expression: Any = None) -> FreeSize:
        """Return the integer that had these values."""
        free = cls(values[0])
        free.values, free.expression = values, expression
        return free

    def _refuse(self, *_: object) -> Any:
        message = f"arithmetic on a size that follows the inputs ({listed(self.values)})"
        raise SizeError(message)

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __neg__ = _refuse

    def __repr__(self) -> str:
        return f"FreeSize({'|'.join(map(str, self.values))})"


@dataclass(frozen=True)
class SizeOf:
    """A leaf of an expression: the size of dimension ``dim`` of what ``node`` gives, and its value in every trace.

    ``node`` is None where the size is that of a value of the graph.
    """

    node: fx.Node | None
    dim: int
    values: tuple[int, ...]


class Claim(NamedTuple):
    """What has to hold wherever the graph does: that an expression over sizes has this value.

    Attributes:
        expression: Over `SizeOf` leaves.
        value: A number, or another expression.
        source: ``file:line`` of the call that takes it.
    """

    expression: Any
    value: Any
    source: str


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


def same_numbers(first: Trace, second: Trace) -> bool:
    """Tell whether the calls of two traces that make the same ones compute the same numbers as constants."""

    def numbers(node: fx.Node) -> list[Any]:
        found = constants_in((node.args, dict(node.kwargs)))
        kept = [value for value in found if isinstance(value, (int, float)) and not isinstance(value, bool)]
        return [(plain(value), getattr(value, "expression", None)) for value in kept]

    return all(numbers(a) == numbers(b) for a, b in zip(first.nodes, second.nodes, strict=True))


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
    """Traces of one mode at different input sizes, or a single one.

    Attributes:
        trace: The first, from which names and calls are read.
        traces: All of them.
        claims: What the constants that were joined so far rest on.
        is_own: Whether all traces are of this mode; the others are those of evaluation else.
    """

    def __init__(self, trace: Trace, *others: Trace) -> None:
        self.trace, self.traces = trace, (trace, *others)
        self.claims: list[Claim] = []
        self.is_own = True
        for other in others:
            _refuse_other_path(trace, other)
        self._others = dict(zip(trace.nodes, zip(*(other.nodes for other in others), strict=True), strict=False))
        self._by_name = {node.name: node for node in trace.nodes}

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch size of every trace: the first size of the first input that has any."""
        batch = next((shape[0] for shape in self.input_shapes if shape), 1)
        return batch.values if type(batch) is FreeSize else (1,)

    def in_training(self, trace: Trace) -> Sizes:
        """Return the sizes of a training trace that makes the same calls as this one."""
        training = Sizes(trace)
        training.is_own = False
        pairs = zip(trace.nodes, self.trace.nodes, strict=True)
        training._others = {node: self._others[twin] for node, twin in pairs if twin in self._others}
        return training

    def joined(self, node: fx.Node, value: Any, pick: Callable[[fx.Node], Any]) -> Any:
        """Return ``value`` (found in ``node`` by ``pick``) with a `FreeSize` for every integer that follows sizes.

        Raises:
            SizeError: something else follows sizes.
        """
        source = str(node.meta["source"])
        try:
            return _Join(self, source).joined(value, tuple(map(pick, self._others.get(node, ()))))
        except SizeError as error:
            message = f"{error}, in {node.meta['function']} at {source}"
            raise SizeError(message) from error

    def joined_arguments(self, node: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and keyword arguments of a call at all sizes."""
        if not self.is_own:
            return plain((tuple(node.args), dict(node.kwargs)))  # type: ignore[no-any-return]
        return self.joined(node, _arguments(node), _arguments)  # type: ignore[no-any-return]

    def shape(self, node: fx.Node) -> tuple[int, ...] | None:
        """Return the shape of the node's tensor."""
        return self.joined(node, node.meta.get("shape"), lambda n: n.meta.get("shape"))  # type: ignore[no-any-return]

    @property
    def input_shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the inputs."""
        return [self.shape(node) or () for node in self.trace.nodes if node.op == "placeholder"]

    def resolved(self, expression: Any) -> Any:
        """Return an expression of the trace over `SizeOf` leaves; where all its sizes are fixed, its value."""
        if not isinstance(expression, tuple):
            return expression
        if expression[0] == "size":
            _, name, dim = expression
            node = self._by_name[name]
            size = self.shape(node)[dim]  # type: ignore[index]
            return SizeOf(node, dim, size.values) if type(size) is FreeSize else int(size)
        operands = tuple(map(self.resolved, expression[1:]))
        if any(isinstance(operand, (tuple, SizeOf)) for operand in operands):
            return (expression[0], *operands)
        return OPERATORS[expression[0]].function(*operands)

    def same_value(self, node: fx.Node) -> bool:
        """Tell whether a constant has the same value at all sizes."""
        return all(_equal(node.meta["value"], other.meta["value"]) for other in self._others.get(node, ()))

    def claim_constant(self, node: fx.Node) -> None:
        """Claim that the numbers from which a constant tensor was made stay what they are."""
        stack, seen = [node], {node}
        while stack:
            node = stack.pop()
            others = tuple(map(_arguments, self._others.get(node, ())))
            _Join(self, str(node.meta["source"]), only_equal=True).joined(_arguments(node), others)
            fresh = [n for n in node.all_input_nodes if n not in seen]
            seen.update(fresh)
            stack.extend(fresh)


def _arguments(node: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return tuple(node.args), dict(node.kwargs)


def is_same(constant: Any, other: Any) -> bool:
    """Tell whether the constants of both modes are the same, at all sizes where those of both are known."""
    if type(constant) is FreeSize and type(other) is FreeSize:
        return constant.values == other.values
    return bool(constant == other)


def _refuse_other_path(trace: Trace, other: Trace) -> None:
    if not same_calls(trace, other):
        message = "the model makes other calls at other input sizes"
        raise SizeError(message)
    if trace.output_template != other.output_template:
        message = "the model returns a number that follows the input sizes"
        raise SizeError(message)


def _equal(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.shape == b.shape and a.dtype == b.dtype and torch.allclose(a, b, 0, 0, equal_nan=True))


@dataclass(frozen=True)
class _Join:
    """Compares one constant between traces, and claims whatever it was computed by.

    Attributes:
        only_equal: Leave constants that differ as they are.
    """

    sizes: Sizes
    source: str
    only_equal: bool = False

    def joined(self, value: Any, others: tuple[Any, ...]) -> Any:
        """Return ``value`` with a `FreeSize` for every integer that differs."""
        if isinstance(value, fx.Node):
            return value
        if isinstance(value, (tuple, list)) and all(_is_like(value, other) for other in others):
            return type(value)([self.joined(*_at(place, value, others)) for place in range(len(value))])
        if isinstance(value, dict) and all(_is_like(value, other) for other in others):
            return {key: self.joined(*_at(key, value, others)) for key in value}
        if isinstance(value, slice) and all(isinstance(other, slice) for other in others):
            parts = ("start", "stop", "step")
            return slice(*(self.joined(getattr(value, p), tuple(getattr(o, p) for o in others)) for p in parts))
        return self._leaf(value, others)

    def _leaf(self, value: Any, others: tuple[Any, ...]) -> Any:
        expression = getattr(value, "expression", None)
        value, others = plain(value), tuple(map(plain, others))
        if all(value == other or (value != value and other != other) for other in others):  # noqa: PLR0124
            if expression is not None:
                self.sizes.claims.append(Claim(self.sizes.resolved(expression), value, self.source))
            return value
        values = (value, *others)
        if all(type(number) is int for number in values):
            return FreeSize.make(values, None if expression is None else self.sizes.resolved(expression))
        if self.only_equal:
            return value
        message = f"a constant of a call is {listed(values)}"
        raise SizeError(message)


def _is_like(value: Any, other: Any) -> bool:
    """Tell whether two containers have the same places."""
    if isinstance(value, dict):
        return isinstance(other, dict) and value.keys() == other.keys()
    return isinstance(other, (tuple, list)) and len(value) == len(other)


def _at(place: Any, value: Any, others: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    return value[place], tuple(other[place] for other in others)


def listed(values: Iterable[Any]) -> str:
    """Return the different values of one thing in the traces, as text."""
    first, *others = dict.fromkeys(map(repr, map(plain, values)))
    return f"{first} at one input size and {' and '.join(others)} at others"


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
