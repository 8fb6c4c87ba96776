"""Turns recorded calls into vertices: operands, names, and constants that follow sizes."""

from __future__ import annotations

import inspect
import keyword
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from types import NotImplementedType
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from torch_dag_core.conversion.copying import deep_copy
from torch_dag_core.conversion.free_sizes import Claim, FreeSize, SizeError, listed
from torch_dag_core.conversion.joining import ByMode
from torch_dag_core.conversion.stating import Statements
from torch_dag_core.graph.builtin_ops import TrainingSwitch
from torch_dag_core.graph.dag import DagModule
from torch_dag_core.graph.nested import leaves, map_leaves
from torch_dag_core.graph.op import Op, field_types
from torch_dag_core.graph.values import Size, Slot
from torch_dag_core.graph.vertex import Vertex
from torch_dag_core.tracing.recording import Ref, Scalar

Constant: TypeAlias = "Scalar | Slot | ByMode[Constant] | slice | tuple[Constant, ...] | list[Constant]"
"""An argument that is no tensor; integers may be `FreeSize`."""
Operand: TypeAlias = "Value | Scalar | Slot | ByMode[Constant] | slice | tuple[Operand, ...] | list[Operand]"
"""An argument of a call."""
Results: TypeAlias = "Value | tuple[Results, ...] | list[Results] | None"
"""What a call gives."""
Emitted: TypeAlias = "Results | NotImplementedType"
"""What a normalizer returns: NotImplemented leaves the call to the next one."""
PASS: Emitted = NotImplemented
"""NotImplemented, as a value of that type; mypy takes the object itself for Any."""

T = TypeVar("T")
AnyOp = TypeVar("AnyOp", bound=Op)
_SPACE = re.compile(r"\s")


@dataclass(eq=False)
class Value:
    """The value of a vertex (one tensor, or a tuple of them) as normalizers see it.

    Attributes:
        make: Creates the vertex at its first use, so that a parameter which ends up inside a module never becomes a
            vertex of its own.
        shape, dtype: Of the tensor; sizes that follow the inputs are `FreeSize`.
        held: Path of the parameter or buffer that the value is; empty for anything else.
        tensor: The parameter, buffer or constant itself.
        read_by: Names of the functions that read what is held; None stands for the model's return.
    """

    make: Callable[[], Vertex]
    shape: tuple[int, ...] | None = None
    dtype: torch.dtype | None = None
    held: str = ""
    tensor: Tensor | None = None
    read_by: frozenset[str | None] = frozenset()
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
    args: tuple[Operand, ...]
    keywords: dict[str, Operand]
    shape: tuple[int, ...] | None
    dtype: torch.dtype | None
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
        name = path or ".".join(filter(None, (self.scope, stem or stem_of(self.name))))
        return self.builder.emit(name, module, operands, own=bool(path), source=self.source)


def stem_of(function: str) -> str:
    """Return the last part of the name of a vertex that calls a function; a keyword gets ``_`` as in `operator`.

    Compilers of PyTorch write the names of what vertices hold as attributes of generated code.
    """
    stem = function.strip("_")
    return f"{stem}_" if keyword.iskeyword(stem) else stem


@dataclass
class Builder:
    """Grows one `DagModule` and remembers the shapes of its values.

    Attributes:
        inputs: Values of the input vertices.
        promoted: Modules made of a function call and a module's own parameters, by function and path.
        owners: Paths that such modules may take; no other vertex is named inside them.
        reserved: Names of the model's own modules and tensors; no other vertex takes them.
        batches: The batch size of every recording.
        values: What the calls so far gave, by the call's number.
        claims: What sizes rest on that were stated over others than those the model computed them from.
        has_fractions: Whether a size is a fraction of another, though it is not known how the model computed it.
        moved: Paths in the model of vertices that have another name; "" is the model itself.
        absorbed: Buffers that a promoted module updates by itself.
    """

    dag: DagModule = field(default_factory=DagModule)
    inputs: list[Value] = field(default_factory=list)
    _seen: list[Value] = field(default_factory=list)
    _copies: dict[int, Any] = field(default_factory=dict)
    promoted: dict[tuple[str, str], nn.Module] = field(default_factory=dict)
    owners: frozenset[str] = frozenset()
    reserved: frozenset[str] = frozenset()
    batches: tuple[int, ...] = (1,)
    values: list[Results] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    has_fractions: bool = False
    moved: dict[str, str] = field(default_factory=dict)
    absorbed: list[str] = field(default_factory=list)

    def remember(self, value: Value, shape: tuple[int, ...] | None, dtype: torch.dtype | None) -> None:
        """Attach shape and type to a value; later constants may refer to its sizes."""
        if value.shape is None:
            value.shape, value.dtype = shape, dtype
            if shape is not None and any(type(size) is FreeSize for size in shape):
                self._seen.append(value)

    def copy_of(self, module: T) -> T:
        """Return the graph's own copy of a module or tensor of the model; ties between them are kept."""
        twin = deep_copy(module, self._copies)
        for part in twin.modules() if isinstance(twin, nn.Module) else ():
            if getattr(part, "inplace", False) is True:
                part.inplace = False  # type: ignore[assignment]
        return twin

    def emit(
        self, name: str, module: nn.Module, operands: tuple[Value, ...], *, own: bool = False, source: str = ""
    ) -> Value:  # fmt: skip
        """Append one vertex.

        Args:
            name: What to name it after.
            module: What it calls.
            operands: On what.
            own: Whether the model has a module or tensor of this name, the vertex's.
            source: ``file:line`` of the call, for errors.
        """
        if isinstance(module, Op) and _has(ByMode, module.config()):
            sides = (_in_mode(module, training=training) for training in (False, True))
            return self.emit(
                name, TrainingSwitch(), tuple(self.emit(name, side, operands, source=source) for side in sides)
            )
        chosen = list(operands)
        if isinstance(module, Op):
            for constant in module.fields:
                self._bind_field(module, constant, chosen, source)
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

    def _bind_field(self, op: Op, name: str, operands: list[Value], source: str) -> None:
        constant = getattr(op, name)
        if _has(FreeSize, constant):
            kind: Any = type(op)  # mypy takes module classes for unhashable
            what = f"the {name!r} of {type(op).__name__} follows"
            if not _takes_sizes(kind, name):
                sizes = next(listed(leaf.values) for leaf in leaves(constant) if type(leaf) is FreeSize)
                message = f"{what} the input sizes ({sizes}), at {source}"
                raise SizeError(message)
            known, more = len(operands), _takes_more(kind)
            setattr(op, name, map_leaves(constant, partial(self._bound, operands=operands, more=more, source=source)))
            if len(operands) > known and not more:
                message = f"{what} the size of another tensor, at {source}"
                raise SizeError(message)

    def _bound(self, leaf: Constant, operands: list[Value], *, more: bool, source: str) -> Constant | Size:
        """Return a `Size` in place of a `FreeSize`; values that it needs become operands."""
        if type(leaf) is not FreeSize:
            return leaf
        statements = Statements(self.inputs, self._seen, self._recorded, self.batches)
        stated = statements.find(leaf, tuple(operands), more=more)
        if stated is None:
            message = f"a size is {listed(leaf.values)} and follows no tensor's size, at {source}"
            raise SizeError(message)
        operands[:] = stated.operands
        self.has_fractions |= stated.is_fraction
        if stated.rests_on is not None and leaf.formula is not None:
            self.claims.append(Claim(leaf.formula, stated.rests_on, source))
        return stated.size

    def _recorded(self, tensor: Ref) -> Value | None:
        """Return the value of a joined call, where that is one tensor and was emitted already."""
        value = self.values[tensor.index] if tensor.index < len(self.values) else None
        return value if isinstance(value, Value) else None


def draft(op: type[AnyOp], *constants: Operand, **named: Operand) -> AnyOp:
    """Return an op whose constants may be `FreeSize` and `ByMode`, which no op keeps: `Call.emit` replaces them."""
    return op(*constants, **named)


def frozen(constant: Operand) -> Operand:
    """Return a constant with tuples in place of lists, which no op keeps."""
    return tuple(map(frozen, constant)) if isinstance(constant, (tuple, list)) else constant


@lru_cache(maxsize=1024)
def _takes_more(op: Any) -> bool:
    """Tell whether an op takes operands for their sizes alone."""
    return any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(op.forward).parameters.values())


@lru_cache(maxsize=1024)
def _takes_sizes(op: Any, name: str) -> bool:
    """Tell from the declared type of a constant whether it may follow sizes."""
    declared = str(field_types(op)[name])
    return "Size" in declared or "Any" in declared


def _in_mode(op: Op, *, training: bool) -> Op:
    """Return the op with the constants of one mode."""

    def pick(leaf: Constant) -> Constant:
        return (leaf.training if training else leaf.evaluation) if isinstance(leaf, ByMode) else leaf

    return type(op)(**{name: map_leaves(constant, pick) for name, constant in op.config().items()})


def _has(kind: type, value: object) -> bool:
    """Tell whether a constant of exactly this class stands anywhere in ``value``."""
    return any(type(leaf) is kind for leaf in leaves(value))
