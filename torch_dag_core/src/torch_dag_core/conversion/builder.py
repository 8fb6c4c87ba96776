"""Turns recorded calls into vertices: operands, names, and constants that follow sizes."""

from __future__ import annotations

import copy
import inspect
import itertools
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

from torch import Tensor, fx, nn

from torch_dag_core.conversion.derivation import Form, form_of
from torch_dag_core.conversion.joining import ByMode, Claim, FreeSize, SizeError, SizeOf, listed
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.op import Op, field_types
from torch_dag_core.graph.values import Size, constants_in, replaced
from torch_dag_core.graph.vertex import Vertex
from torch_dag_core.ops.stochastic import TrainingSwitch

T = TypeVar("T")
_MOST_DIMS = 4
_SPACE = re.compile(r"\s")


@dataclass(eq=False)
class Value:
    """The value of a vertex (one tensor, or a tuple of them) as normalizers see it.

    ``make`` creates the vertex at its first use, so that a parameter which ends up inside a module never
    becomes a vertex of its own.
    """

    make: Callable[[], Vertex]
    shape: tuple[int, ...] | None = None
    dtype: Any = None
    held: str = ""
    tensor: Tensor | None = None
    readers: tuple[fx.Node, ...] = ()
    _vertex: Vertex | None = None

    @property
    def vertex(self) -> Vertex:
        """The vertex; created now if it was not before."""
        if self._vertex is None:
            self._vertex = self.make()
        return self._vertex


@dataclass
class Call:
    """One recorded call, handed to normalizers.

    Attributes:
        name: Canonical name of the function (``add`` for ``x.add_(y)``), or of the module's class.
        args, keywords: Arguments, with a `Value` for every tensor.
        shape, dtype: Of the result where it is one tensor; sizes that follow the inputs are `FreeSize`.
        length: Number of results where there are several.
        item_shapes: Their shapes.
        scope: Path of the module that made the call.
        path: Path of the module that is called; empty for functions.
        source: ``file:line`` of the call.
    """

    builder: Builder
    name: str
    args: tuple[Any, ...]
    keywords: dict[str, Any]
    shape: tuple[int, ...] | None
    dtype: Any
    length: int | None
    item_shapes: tuple[tuple[int, ...], ...]
    scope: str
    source: str
    path: str = ""

    def emit(self, module: nn.Module, *operands: Value, stem: str = "", path: str = "") -> Value:
        """Append a vertex that calls ``module`` on the operands; `FreeSize` constants become `Size`.

        Args:
            module: An op; constants may hold sizes that follow the inputs.
            operands: Its tensors.
            stem: Last part of the vertex name; the function's name by default.
            path: Whole vertex name instead.
        """
        name = path or ".".join(filter(None, (self.scope, stem or self.name.strip("_"))))
        self.builder.source = self.source
        return self.builder.emit(name, module, operands, own=bool(path))


@dataclass
class Builder:
    """Grows one `DagModule` and remembers the shapes of its values.

    Attributes:
        inputs: Values of the input vertices.
        claims: What sizes rest on that were stated over others than those the model computed them from.
        has_fractions: Whether a size is a fraction of another, though it is not known how the model computed it.
        value_of: Gives the value of a node.
        source: ``file:line`` of the call that is emitted.
        promoted: Modules made of a function call and a module's own parameters, by function and path.
        owners: Paths that such modules may take; no other vertex is named inside them.
        reserved: Names of the model's own modules and tensors; no other vertex takes them.
        batches: The batch sizes of the two traces; equal where the batch is fixed.
        moved: Paths in the model of vertices that have another name; "" is the model itself.
        absorbed: Buffers that a promoted module updates by itself.
    """

    dag: DagModule = field(default_factory=DagModule)
    inputs: list[Value] = field(default_factory=list)
    _seen: list[Value] = field(default_factory=list)
    _copies: dict[int, Any] = field(default_factory=dict)
    promoted: dict[Any, nn.Module] = field(default_factory=dict)
    owners: frozenset[str] = frozenset()
    reserved: frozenset[str] = frozenset()
    batches: tuple[int, ...] = (1,)
    claims: list[Claim] = field(default_factory=list)
    source: str = ""
    has_fractions: bool = False
    value_of: Callable[[fx.Node | None], Any] = lambda _: None
    moved: dict[str, str] = field(default_factory=dict)
    absorbed: list[str] = field(default_factory=list)

    def remember(self, value: Value, shape: tuple[int, ...] | None, dtype: Any) -> None:
        """Attach shape and type to a value; later constants may refer to its sizes."""
        if value.shape is None:
            value.shape, value.dtype = shape, dtype
            if shape is not None and any(type(size) is FreeSize for size in shape):
                self._seen.append(value)

    def copy_of(self, module: T) -> T:
        """Return the graph's own copy of a module or tensor of the model; ties between them are kept."""
        twin = copy.deepcopy(module, self._copies)
        for part in twin.modules() if isinstance(twin, nn.Module) else ():
            if getattr(part, "inplace", False) is True:
                part.inplace = False  # type: ignore[assignment]
        return twin

    def emit(self, name: str, module: nn.Module, operands: tuple[Value, ...], *, own: bool = False) -> Value:
        """Append one vertex; ``own`` tells that the model has a module or tensor of this name, the vertex's."""
        if isinstance(module, Op) and _has(ByMode, module.config()):
            sides = (_in_mode(module, training=training) for training in (False, True))
            return self.emit(name, TrainingSwitch(), tuple(self.emit(name, side, operands) for side in sides))
        chosen = list(operands)
        if isinstance(module, Op):
            for constant in module.fields:
                self._bind_field(module, constant, chosen)
        elif _has(FreeSize, vars(module)):
            message = f"{type(module).__name__} has a constant that follows the input sizes"
            raise SizeError(message)
        vertices = [value.vertex for value in chosen]
        vertex = self.dag.add_vertex(self.free_name(name, own=own), module, vertices)
        if own and vertex.name != name:
            self.moved[vertex.name] = name
        return Value(lambda: vertex, _vertex=vertex)

    def free_name(self, name: str, *, own: bool = False) -> str:
        """Return a name like ``name`` for a vertex; ``own`` as in `emit`."""
        placed = self._placed(_SPACE.sub("_", name))
        chosen = self.dag.unique_name(placed)
        while chosen in self.reserved and not (own and chosen == name):
            placed += "_op"
            chosen = self.dag.unique_name(placed)
        return chosen

    def _placed(self, name: str) -> str:
        """Return the name, beside instead of inside the vertex that has, or will have, a prefix of it."""
        parts = name.split(".")
        for count in range(1, len(parts)):
            prefix = ".".join(parts[:count])
            if prefix in self.dag or prefix in self.owners:
                return f"{prefix}_{'_'.join(parts[count:])}"
        return name

    def _bind_field(self, op: Op, name: str, operands: list[Value]) -> None:
        constant = getattr(op, name)
        if _has(FreeSize, constant):
            kind: Any = type(op)
            if not _takes_sizes(kind, name):
                what = f"the {name!r} of {type(op).__name__} follows the input sizes"
                message = f"{what} ({_free(constant)}), at {self.source}"
                raise SizeError(message)
            known = len(operands)
            setattr(op, name, self._bound(constant, operands, more=_takes_more(kind)))
            if len(operands) > known and not _takes_more(kind):
                message = f"the {name!r} of {type(op).__name__} follows the size of another tensor, at {self.source}"
                raise SizeError(message)

    def _bound(self, constant: Any, operands: list[Value], *, more: bool) -> Any:
        return replaced(constant, lambda leaf: self._size(leaf, operands, more) if type(leaf) is FreeSize else leaf)

    def _size(self, target: FreeSize, operands: list[Value], more: bool) -> Size:  # noqa: FBT001
        """State ``target`` over sizes of the operands; where that fails, over other values, made operands.

        A size of an operand, or a product of several, comes first; then what the model computed ``target`` by. What
        merely had the same values in all traces comes last, a fraction or multiple after the rest, for it may round
        another way at other image sizes; it becomes a claim where it can be checked.
        """
        known = len(operands)
        form = None if target.expression is None else form_of(target.expression)
        if form is not None and form.whole:
            product = next((s for s in self._candidates(target, operands, known) if _is_product(s)), None)
            found = product or self._derived(form, operands, more=more)
            if found is not None:
                return found
        values = (*operands[:known], *self.inputs, *reversed(self._seen))
        for exact in (True, False):
            for position, value in enumerate(values):
                found = next((s for s in _over(target, value.shape) if not exact or self._is_exact(s, target)), None)
                if found is None:
                    continue
                if position >= known:
                    operands.append(value)
                if target.expression is None:
                    self.has_fractions |= found.den > 1
                else:
                    self.claims.append(Claim(target.expression, _expression(found, value.shape or ()), self.source))
                return found.shifted(min(position, known))
        message = f"a size is {_free(target)} and follows no tensor's size, at {self.source}"
        raise SizeError(message)

    def _candidates(self, target: FreeSize, operands: list[Value], known: int) -> Iterator[Size]:
        for position, value in enumerate(operands[:known]):
            yield from (size.shifted(position) for size in _over(target, value.shape))

    def _derived(self, form: Form, operands: list[Value], *, more: bool) -> Size | None:
        """Return the form over sizes of the operands; with ``more``, values that have its sizes become operands."""
        extended = list(operands)
        dims = []
        for leaf in form.leaves:
            values = enumerate((*extended, *(self.inputs if more else ())))
            place = next(((i, d) for i, v in values for d, n in enumerate(v.shape or ()) if _is_equal(n, leaf)), None)
            value = self.value_of(leaf.node) if place is None and more else None
            if isinstance(value, Value):
                extended.append(value)
                place = len(extended) - 1, leaf.dim
            if place is None:
                return None
            if place[0] >= len(extended):
                extended.append(self.inputs[place[0] - len(extended)])
                place = len(extended) - 1, place[1]
            dims.append(place)
        operands[:] = extended
        return Size(tuple(dims), form.num, form.den, form.add)

    def _is_exact(self, size: Size, target: FreeSize) -> bool:
        """Tell whether the statement holds at every image size: a plain product, or one of numbers of samples."""
        batches = self.batches if len(self.batches) == len(target.values) else (1,) * len(target.values)
        is_batch = all(n * batches[0] == target.values[0] * b for n, b in zip(target.values, batches, strict=True))
        return is_batch or _is_product(size)


def _free(constant: Any) -> str:
    """Return the values of the first integer inside a constant that follows sizes, as text."""
    return next(listed(leaf.values) for leaf in constants_in(constant) if type(leaf) is FreeSize)


def _is_product(size: Size) -> bool:
    return (size.num, size.den, size.add) == (1, 1, 0)


def _is_equal(size: int, leaf: SizeOf) -> bool:
    return type(size) is FreeSize and size.values == leaf.values


def _expression(size: Size, shape: tuple[int, ...]) -> Any:
    """Return a size over dimensions of one value as an expression."""
    expression: Any = size.num
    for _, dim in size.dims:
        extent = shape[dim]
        expression = ("mul", expression, SizeOf(None, dim, extent.values) if type(extent) is FreeSize else int(extent))
    return ("add", ("floordiv", expression, size.den), size.add)


@lru_cache(maxsize=1024)
def _takes_more(op: Any) -> bool:
    """Tell whether an op takes operands for their sizes alone."""
    return any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(op.forward).parameters.values())


@lru_cache(maxsize=1024)
def _takes_sizes(op: Any, name: str) -> bool:
    """Tell from the declared type of a constant whether it may follow sizes."""
    declared = str(field_types(op)[name])
    return "Size" in declared or "Any" in declared


def _over(target: FreeSize, shape: tuple[int, ...] | None) -> Iterator[Size]:
    """Yield ``target`` as rational multiples of products of free sizes of ``shape``, and as one plus a constant."""
    free = [(dim, size) for dim, size in enumerate(shape or ()) if type(size) is FreeSize]
    for count in range(1, min(len(free), _MOST_DIMS) + 1):
        for chosen in itertools.combinations(free, count):
            products = [math.prod(sizes) for sizes in zip(*(size.values for _, size in chosen), strict=True)]
            here = products[0]
            if all(n * here == target.values[0] * p for n, p in zip(target.values, products, strict=True)):
                common = math.gcd(int(target), here)
                dims = tuple((0, dim) for dim, _ in chosen)
                yield Size(dims, int(target) // common, here // common)
    for dim, size in free:
        differences = {n - m for n, m in zip(target.values, size.values, strict=True)}
        if len(differences) == 1:
            yield Size(((0, dim),), add=differences.pop())


def _in_mode(op: Op, *, training: bool) -> Op:
    """Return the op with the constants of one mode."""

    def pick(leaf: Any) -> Any:
        return (leaf.training if training else leaf.evaluation) if isinstance(leaf, ByMode) else leaf

    return type(op)(**{name: replaced(constant, pick) for name, constant in op.config().items()})


def _has(kind: type, value: Any) -> bool:
    """Tell whether a constant of exactly this class stands anywhere in ``value``."""
    return any(type(leaf) is kind for leaf in constants_in(value))
