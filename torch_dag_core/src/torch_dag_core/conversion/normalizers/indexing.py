"""Normalizers of indexing, and of writing by index."""

from __future__ import annotations

from torch_dag_core.conversion.builder import PASS, Call, Emitted, Operand, Value, draft, frozen
from torch_dag_core.conversion.normalizers.declaration import normalizes
from torch_dag_core.graph.nested import map_leaves
from torch_dag_core.graph.values import Slot
from torch_dag_core.ops.arithmetic import Cast
from torch_dag_core.ops.layout import Expand, Gather, Index, IndexSelect, SetIndex, Triangle


def _items(items: Operand, operands: list[Value]) -> tuple[Operand, ...]:
    """Return the items of an index with a `Slot` for each tensor, which is appended to ``operands``."""

    def stored(leaf: Operand) -> Operand:
        if isinstance(leaf, Value):
            operands.append(leaf)
            return Slot(len(operands))
        return leaf

    given = frozen(items if isinstance(items, tuple) else (items,))
    constants: tuple[Operand, ...] = map_leaves(given, stored)
    return constants


def _takes_all(items: Operand) -> bool:
    """Return whether an index selects the whole tensor, as ``[:, 0:]`` and ``[...]`` do."""
    return all(item is ... or _is_whole(item) for item in (items if isinstance(items, tuple) else (items,)))


def _is_whole(item: Operand) -> bool:
    if not isinstance(item, slice) or item.stop is not None:
        return False
    start, step = item.start, item.step
    return (start is None or (type(start) is int and start == 0)) and (step is None or step == 1)


@normalizes("__getitem__")
def getitem(call: Call, input: Value, items: Operand) -> Value:
    """Emit `Index`; an index that selects the whole tensor returns the operand."""
    if _takes_all(items):
        return input
    operands: list[Value] = []
    return call.emit(Index(_items(items, operands)), input, *operands)


@normalizes("select")
def select(call: Call, input: Value, dim: int, index: Operand) -> Emitted:
    """Emit `Index` with an int, unless the index is a tensor."""
    if isinstance(index, Value):
        return PASS
    return call.emit(Index((*_before(input, dim), index)), input)


@normalizes("gather", "index_select")
def along(call: Call, input: Value, dim: int, index: Value, sparse_grad: bool = False) -> Value:
    """Emit `Gather` or `IndexSelect`."""
    del sparse_grad
    op = Gather(dim) if call.name == "gather" else IndexSelect(dim)
    return call.emit(op, input, index)


@normalizes("narrow")
def narrow(call: Call, input: Value, dim: int, start: Operand, length: Operand) -> Emitted:
    """Emit `Index` with a slice if its bounds are ints."""
    if type(start) is not int or type(length) is not int:
        return PASS
    return call.emit(Index((*_before(input, dim), slice(start, start + length))), input)


def _before(input: Value, dim: int) -> tuple[slice, ...]:
    return (slice(None),) * (dim % len(input.shape or ()))


@normalizes("set_index")
def set_index(call: Call, input: Value, items: Operand, value: Operand) -> Value:
    """Emit `SetIndex`; a tensor written to the whole of an equally shaped one is returned itself."""
    if isinstance(value, Value) and _takes_all(items) and (value.shape, value.dtype) == (input.shape, input.dtype):
        return value
    operands = [value] if isinstance(value, Value) else []
    constant = None if isinstance(value, Value) else value
    return call.emit(draft(SetIndex, _items(items, operands), constant), input, *operands)


@normalizes("copy")
def copy(call: Call, input: Value, src: Value, non_blocking: bool = False) -> Value:
    """Emit ``src`` in the shape and dtype of ``input`` for ``input.copy_(src)``."""
    del non_blocking
    if src.dtype != input.dtype:
        src = call.emit(draft(Cast, input.dtype), src, stem="cast")
    return src if input.shape == src.shape else call.emit(Expand(input.shape or ()), src, stem="expand")


@normalizes("tril", "triu")
def triangle(call: Call, input: Value, diagonal: int = 0) -> Value:
    """Emit `Triangle`."""
    return call.emit(Triangle(diagonal, upper=call.name == "triu"), input)
