"""Functions that rearrange, join or repeat."""

from __future__ import annotations

from typing import Any

from torch_dag_core.conversion.builder import Call, Value
from torch_dag_core.conversion.joining import FreeSize
from torch_dag_core.conversion.normalizers.declaration import normalizes
from torch_dag_core.graph.values import Slot
from torch_dag_core.ops.layout import Expand, Flip, Pad, Permute, Repeat, RepeatInterleave, Reshape, Roll, Split, Unbind
from torch_dag_core.ops.torch_call import TorchCall


def _flat(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return ``(2, 3)`` for both ``f((2, 3))`` and ``f(2, 3)``."""
    return tuple(args[0]) if len(args) == 1 and isinstance(args[0], (tuple, list)) else tuple(args)


def reshape_target(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a reshape target: one free size is -1, several follow the operand."""
    free = [size for size in shape if type(size) is FreeSize]
    return tuple(-1 if type(size) is FreeSize else size for size in shape) if len(free) == 1 else shape


@normalizes(
    "reshape", "view", "flatten", "squeeze", "unsqueeze", "unflatten", "view_as", "reshape_as", "ravel", "_unsafe_view"
)
def reshape(call: Call, input: Value, *args: Any, **_: Any) -> Any:
    """Every view is the shape that it was seen to give."""
    if call.shape is None or (call.name == "view" and call.dtype != input.dtype):
        return NotImplemented
    del args
    return call.emit(Reshape(reshape_target(call.shape)), input)


@normalizes("permute")
def permute(call: Call, input: Value, *dims: Any, **kwargs: Any) -> Value:
    """Permute by non-negative dimensions."""
    order = _flat(dims) if dims else tuple(kwargs["dims"])
    return call.emit(Permute(tuple(dim % len(order) for dim in order)), input)


@normalizes("transpose", "swapaxes", "swapdims")
def transpose(call: Call, input: Value, dim0: int, dim1: int) -> Value:
    """Swap two dimensions."""
    return _swap(call, input, dim0, dim1)


@normalizes("t", "T", "mT")
def matrix_transpose(call: Call, input: Value, *_: Any) -> Any:
    """Swap the last two dimensions; reverse them all for ``T``."""
    if input.shape is None:
        return NotImplemented
    if call.name == "T":
        return call.emit(Permute(tuple(reversed(range(len(input.shape))))), input, stem="transpose")
    return input if len(input.shape) < 2 else _swap(call, input, -2, -1)


@normalizes("H", "mH", "adjoint")
def adjoint(call: Call, input: Value, *_: Any) -> Any:
    """The matrix transpose, conjugated where it is complex."""
    transposed = matrix_transpose(call, input)
    if transposed is NotImplemented or not call.dtype.is_complex:
        return transposed
    return call.emit(TorchCall("torch.conj", (Slot(0),)), transposed, stem="conj")


def _swap(call: Call, input: Value, first: int, second: int) -> Value:
    dims = list(range(len(call.shape or ())))
    dims[first], dims[second] = dims[second], dims[first]
    return call.emit(Permute(tuple(dims)), input)


@normalizes("movedim", "moveaxis")
def movedim(call: Call, input: Value, source: int, destination: int) -> Any:
    """Move one dimension."""
    if not isinstance(source, int):
        return NotImplemented
    rank = len(call.shape or ())
    dims = [dim for dim in range(rank) if dim != source % rank]
    dims.insert(destination % rank, source % rank)
    return call.emit(Permute(tuple(dims)), input)


@normalizes("expand", "expand_as", "broadcast_to")
def expand(call: Call, input: Value, *args: Any, **_: Any) -> Value:
    """Broadcast to the shape that was seen; dimensions that stay are -1."""
    del args
    shape, given = call.shape or (), input.shape or ()
    lead = len(shape) - len(given)
    sizes = tuple(
        -1 if place >= lead and _same(size, given[place - lead]) else size for place, size in enumerate(shape)
    )
    return input if all(type(size) is int and size == -1 for size in sizes) else call.emit(Expand(sizes), input)


def _same(a: int, b: int) -> bool:
    return int(a) == int(b) and getattr(a, "other", a) == getattr(b, "other", b)


@normalizes("repeat", "tile")
def repeat(call: Call, input: Value, *args: Any, **kwargs: Any) -> Value:
    """Tile."""
    repeats = _flat(args) if args else tuple(next(iter(kwargs.values())))
    if call.name == "tile" and len(repeats) < len(input.shape or ()):
        repeats = (1,) * (len(input.shape or ()) - len(repeats)) + repeats
    return call.emit(Repeat(repeats), input)


@normalizes("repeat_interleave")
def repeat_interleave(call: Call, input: Value, repeats: Any, dim: int | None = None, **_: Any) -> Any:
    """Repeat each slice a fixed number of times."""
    return NotImplemented if isinstance(repeats, Value) else call.emit(RepeatInterleave(repeats, dim), input)


@normalizes("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split")
def split(call: Call, input: Value, how: Any = None, dim: int = 0, **kwargs: Any) -> Value:
    """Cut into the pieces that were seen; chunk is a split."""
    del how
    dim = kwargs.get("dim", dim)
    return call.emit(Split(tuple(shape[dim] for shape in call.item_shapes), dim), input, stem="split")


@normalizes("unbind")
def unbind(call: Call, input: Value, dim: int = 0) -> Value:
    """Take a dimension apart."""
    return call.emit(Unbind(dim), input)


@normalizes("roll")
def roll(call: Call, input: Value, shifts: Any, dims: Any = None) -> Value:
    """Roll by constants."""
    return call.emit(Roll(_tuple(shifts), _tuple(dims)), input)


@normalizes("flip")
def flip(call: Call, input: Value, *dims: Any, **kwargs: Any) -> Value:
    """Reverse dimensions."""
    return call.emit(Flip(_flat(dims) if dims else tuple(kwargs["dims"])), input)


@normalizes("pad")
def pad(call: Call, input: Value, pad: Any, mode: str = "constant", value: Any = None) -> Value:
    """Pad; nothing to pad is nothing to do."""
    if all(type(amount) is int and amount == 0 for amount in pad):
        return input
    return call.emit(Pad(tuple(pad), mode, value), input)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, (tuple, list)) else value
