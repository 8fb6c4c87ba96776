"""Normalizers of functions that rearrange, join or repeat elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch_dag_core.conversion.builder import PASS, Call, Emitted, Operand, Value, draft, frozen
from torch_dag_core.conversion.free_sizes import FreeSize
from torch_dag_core.conversion.normalizers.declaration import normalizes
from torch_dag_core.graph.values import Slot
from torch_dag_core.ops.layout import Expand, Flip, Pad, Permute, Repeat, RepeatInterleave, Reshape, Roll, Split, Unbind
from torch_dag_core.ops.torch_call import TorchCall


def _flat(args: tuple[Operand, ...], keywords: dict[str, Operand]) -> tuple[int, ...]:
    """Return ``(2, 3)`` for any of ``f((2, 3))``, ``f(2, 3)`` and ``f(dims=(2, 3))``."""
    given = args or tuple(keywords.values())
    flat = given[0] if len(given) == 1 and isinstance(given[0], (tuple, list)) else given
    return cast("tuple[int, ...]", tuple(flat))


def reshape_target(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the target of a reshape: a single size that depends on the inputs becomes -1."""
    free = [size for size in shape if type(size) is FreeSize]
    return tuple(-1 if type(size) is FreeSize else size for size in shape) if len(free) == 1 else shape


@normalizes(
    "reshape", "view", "flatten", "squeeze", "unsqueeze", "unflatten", "view_as", "reshape_as", "ravel", "_unsafe_view"
)
def reshape(call: Call, input: Value, *args: Operand, **_: Operand) -> Emitted:
    """Emit `Reshape` to the recorded shape, whichever function was called."""
    if call.shape is None or (call.name == "view" and call.dtype != input.dtype):
        return PASS
    del args
    return call.emit(Reshape(reshape_target(call.shape)), input)


@normalizes("permute")
def permute(call: Call, input: Value, *dims: Operand, **kwargs: Operand) -> Value:
    """Emit `Permute` with non-negative dimensions."""
    order = _flat(dims, kwargs)
    return call.emit(Permute(tuple(dim % len(order) for dim in order)), input)


@normalizes("transpose", "swapaxes", "swapdims")
def transpose(call: Call, input: Value, dim0: int, dim1: int) -> Value:
    """Emit `Permute` that swaps two dimensions."""
    return _swap(call, input, dim0, dim1)


@normalizes("t", "T", "mT")
def matrix_transpose(call: Call, input: Value, *_: Operand) -> Emitted:
    """Emit `Permute` that swaps the last two dimensions, or reverses all for ``T``."""
    return _transposed(call, input)


@normalizes("H", "mH", "adjoint")
def adjoint(call: Call, input: Value, *_: Operand) -> Emitted:
    """Emit the matrix transpose, with the complex conjugate of a complex tensor."""
    transposed = _transposed(call, input)
    if isinstance(transposed, Value) and call.dtype is not None and call.dtype.is_complex:
        return call.emit(TorchCall("torch.conj", (Slot(0),)), transposed, stem="conj")
    return transposed


def _transposed(call: Call, input: Value) -> Emitted:
    if input.shape is None:
        return PASS
    if call.name == "T":
        return call.emit(Permute(tuple(reversed(range(len(input.shape))))), input, stem="transpose")
    return input if len(input.shape) < 2 else _swap(call, input, -2, -1)


def _swap(call: Call, input: Value, first: int, second: int) -> Value:
    dims = list(range(len(call.shape or ())))
    dims[first], dims[second] = dims[second], dims[first]
    return call.emit(Permute(tuple(dims)), input)


@normalizes("movedim", "moveaxis")
def movedim(
    call: Call, input: Value, source: int | tuple[int, ...], destination: int | tuple[int, ...]
) -> Emitted:  # fmt: skip
    """Emit `Permute` that moves one dimension."""
    if not isinstance(source, int) or not isinstance(destination, int):
        return PASS
    rank = len(call.shape or ())
    dims = [dim for dim in range(rank) if dim != source % rank]
    dims.insert(destination % rank, source % rank)
    return call.emit(Permute(tuple(dims)), input)


@normalizes("expand", "expand_as", "broadcast_to")
def expand(call: Call, input: Value, *args: Operand, **_: Operand) -> Value:
    """Emit `Expand` to the recorded shape, with -1 for dimensions that do not change."""
    del args
    return _expanded(call, input, call.shape or ())


@normalizes("broadcast_tensors")
def broadcast_tensors(call: Call, *inputs: Operand) -> tuple[Value, ...]:
    """Broadcast several tensors, given one by one or in a list, to one shape."""
    values = inputs[0] if len(inputs) == 1 and isinstance(inputs[0], (tuple, list)) else inputs
    pairs = zip(cast("tuple[Value, ...]", tuple(values)), call.item_shapes, strict=True)
    return tuple(_expanded(call, value, shape) for value, shape in pairs)


def _expanded(call: Call, input: Value, shape: tuple[int, ...]) -> Value:
    given = input.shape or ()
    lead = len(shape) - len(given)
    sizes = tuple(
        -1 if place >= lead and _same(size, given[place - lead]) else size for place, size in enumerate(shape)
    )
    return input if all(type(size) is int and size == -1 for size in sizes) else call.emit(Expand(sizes), input)


def _same(a: int, b: int) -> bool:
    return int(a) == int(b) and getattr(a, "other", a) == getattr(b, "other", b)


@normalizes("repeat", "tile")
def repeat(call: Call, input: Value, *args: Operand, **kwargs: Operand) -> Value:
    """Emit `Repeat`."""
    repeats = _flat(args, kwargs)
    if call.name == "tile" and len(repeats) < len(input.shape or ()):
        repeats = (1,) * (len(input.shape or ()) - len(repeats)) + repeats
    return call.emit(Repeat(repeats), input)


@normalizes("repeat_interleave")
def repeat_interleave(
    call: Call, input: Value, repeats: Operand, dim: int | None = None, **_: Operand
) -> Emitted:  # fmt: skip
    """Emit `RepeatInterleave`, unless the number of repeats is a tensor."""
    if isinstance(repeats, Value):
        return PASS
    return call.emit(draft(RepeatInterleave, repeats, dim), input)


@normalizes("chunk", "split", "split_with_sizes", "tensor_split", "unsafe_chunk", "unsafe_split")
def split(call: Call, input: Value, how: Operand = None, dim: int = 0, **_: Operand) -> Value:
    """Emit `Split` with the recorded sizes of the pieces, for chunk as well."""
    del how
    return call.emit(Split(tuple(shape[dim] for shape in call.item_shapes), dim), input, stem="split")


@normalizes("unbind")
def unbind(call: Call, input: Value, dim: int = 0) -> Value:
    """Emit `Unbind`."""
    return call.emit(Unbind(dim), input)


@normalizes("roll")
def roll(call: Call, input: Value, shifts: Operand, dims: Operand = None) -> Value:
    """Emit `Roll`."""
    return call.emit(draft(Roll, frozen(shifts), frozen(dims)), input)


@normalizes("flip")
def flip(call: Call, input: Value, *dims: Operand, **kwargs: Operand) -> Value:
    """Emit `Flip`."""
    return call.emit(Flip(_flat(dims, kwargs)), input)


@normalizes("pad")
def pad(
    call: Call, input: Value, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Value:  # fmt: skip
    """Emit `Pad`, or return the operand if all amounts are 0."""
    if all(type(amount) is int and amount == 0 for amount in pad):
        return input
    return call.emit(Pad(tuple(pad), mode, value), input)
