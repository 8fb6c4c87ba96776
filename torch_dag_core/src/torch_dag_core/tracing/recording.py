"""What one run of a model leaves behind: a list of frozen entries, in the order in which they came about.

An entry is an input, a tensor that the model holds, or a call; it refers to earlier entries by their number (`Ref`).
A `Recording` never changes once it exists. It is no `torch.fx` graph, because nothing runs or edits it; print it to
read what was recorded, one line an entry.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from types import EllipsisType
from typing import Any, Self, TypeAlias

import torch
from torch import Tensor

from torch_dag_core.graph.nested import is_flat, leaves
from torch_dag_core.graph.op import Op
from torch_dag_core.tracing.expressions import SizeUse
from torch_dag_core.tracing.settled import SETTLED

Shape: TypeAlias = tuple[int, ...]
Scalar: TypeAlias = (
    "bool | int | float | complex | str | torch.dtype | torch.device | torch.layout | torch.memory_format"
    " | torch.Generator | EllipsisType | None"
)
"""What torch functions take besides tensors."""
Live: TypeAlias = "Tensor | Scalar | slice | tuple[Live, ...] | list[Live] | dict[str, Live]"
"""What torch functions take and give while the model runs."""
Argument: TypeAlias = "Ref | Scalar | slice | tuple[Argument, ...] | list[Argument] | dict[str, Argument]"
"""An argument as it is recorded: a `Ref` stands for each tensor."""


@dataclass(frozen=True, slots=True)
class Ref:
    """The value of entry number ``index``."""

    index: int

    def __repr__(self) -> str:
        return f"%{self.index}"


@cache
def ref_to(index: int) -> Ref:
    """Return the one `Ref` to an entry that recordings share: tuples of one object are quick to compare."""
    return Ref(index)


@dataclass(frozen=True, eq=False, slots=True)
class Origin:
    """Where an entry came about.

    Attributes:
        scope: Path of the innermost module that was running; empty for the model itself.
        source: ``file:line``.
        gradient: Whether autograd was on.
    """

    scope: str
    source: str
    gradient: bool


@dataclass(frozen=True, eq=False, slots=True)
class Outcome:
    """What an entry's value is.

    Attributes:
        shape, dtype: Of the tensor; None where the value is something else.
        items: Shapes of the results where there are several; None where there are not, and for results that are no
            tensors.
        is_constant: Whether the value depends on neither inputs nor parameters nor random numbers.
        tensor: The value itself, where it is one constant tensor.
    """

    shape: Shape | None = None
    dtype: torch.dtype | None = None
    items: tuple[Shape | None, ...] | None = None
    is_constant: bool = False
    tensor: Tensor | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Entry:
    """One line of a recording.

    Attributes:
        name: Name of the input, last part of the path of what is held, name of the called module, or canonical name
            of the called function (``add`` for ``x.add_(y)``).
        origin: Where it came about.
        outcome: What its value is.
        args, keywords: Arguments of a call.
        writes: Name of the buffer that has this value from here on.
        changes_state: Whether the call changes the model's state by itself, as a batch norm does.
    """

    name: str
    origin: Origin
    outcome: Outcome = field(default_factory=Outcome)
    args: tuple[Argument, ...] = ()
    keywords: Mapping[str, Argument] = field(default_factory=dict)
    writes: str | None = None
    changes_state: bool = False

    def made(
        self, *, outcome: Outcome, args: tuple[Argument, ...], keywords: Mapping[str, Argument], changes_state: bool
    ) -> Self:
        """Return the entry of a call that was made, given what was only planned; faster than `dataclasses.replace`."""
        entry = object.__new__(type(self))
        vars(entry).update(vars(self), outcome=outcome, args=args, keywords=keywords, changes_state=changes_state)
        return entry

    @cached_property
    def operands(self) -> tuple[int, ...]:
        """Numbers of the entries that this one reads, each once, in the order of the arguments."""
        found = leaves((self.args, self.keywords))
        return tuple(dict.fromkeys([leaf.index for leaf in found if type(leaf) is Ref]))

    @cached_property
    def has_expressions(self) -> bool:
        """Whether a number among the arguments was computed from sizes."""
        return not SETTLED.isdisjoint(map(type, leaves((self.args, self.keywords))))

    @cached_property
    def signature(self) -> Hashable:
        """What makes calls of two recordings the same call, whatever their constants."""
        reads = tuple(map(_tensors, (*self.args, *self.keywords.values())))
        return type(self), self.identity, self.origin.scope, len(self.args), tuple(self.keywords), reads

    @property
    def identity(self) -> Hashable:
        """What is called, held or given."""
        return self.name

    def __str__(self) -> str:
        marks = [
            _described(self.outcome),
            "constant" if self.outcome.is_constant else "",
            f"writes {self.writes}" if self.writes is not None else "",
            "changes state" if self.changes_state else "",
            f"in {self.origin.scope or 'the model'} at {self.origin.source}",
        ]
        return f"{self._what}: {'; '.join(filter(None, marks))}"

    @property
    def _what(self) -> str:
        named = (f"{name}={value!r}" for name, value in self.keywords.items())
        return f"{self._label}({', '.join([*map(repr, self.args), *named])})"

    @property
    def _label(self) -> str:
        return self.name


class Input(Entry):
    """An input tensor."""

    @property
    def _what(self) -> str:
        return f"input {self.name}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Held(Entry):
    """A tensor that no recorded call made: a parameter, a buffer, or one that was built elsewhere.

    Attributes:
        path: Name of the parameter or buffer; ``constant_N`` for any other tensor.
        kind: ``parameter``, ``buffer`` or ``constant``.
        tensor: The tensor that the trace met; without data where it is a parameter of the model.
        computed_by: The entry of an earlier run that the tensor is the value of, where the model kept it in Python
            from one call to the next.
    """

    path: str
    kind: str
    tensor: Tensor
    computed_by: Entry | None = None

    @property
    def identity(self) -> Hashable:
        """The path."""
        return self.path

    @property
    def _what(self) -> str:
        return f"{self.kind} {self.path}"


@dataclass(frozen=True, eq=False, kw_only=True)
class FunctionCall(Entry):
    """A call of a torch function, of a method or of a property; in-place ones are recorded as what they compute.

    Attributes:
        function: The function; the name for methods and properties.
    """

    function: Hashable

    @property
    def identity(self) -> Hashable:
        """The function."""
        return self.function


@dataclass(frozen=True, eq=False, kw_only=True)
class ModuleCall(Entry):
    """A call of a module that is not traced through.

    Attributes:
        path: Path of the module in the model; empty for the model itself.
    """

    path: str

    @property
    def identity(self) -> Hashable:
        """The path."""
        return self.path

    @property
    def _label(self) -> str:
        return f"module {self.path or self.name}"


@dataclass(frozen=True, eq=False, kw_only=True)
class OpCall(Entry):
    """A call of an op that a function made which stands in for a module; ``keywords`` are the op's constants.

    Attributes:
        op: The op's class.
    """

    op: type[Op]

    @property
    def identity(self) -> Hashable:
        """The class's dotted name."""
        return f"{self.op.__module__}.{self.op.__qualname__}"

    @property
    def _label(self) -> str:
        return f"op {self.name}"


@dataclass(frozen=True, eq=False, kw_only=True)
class Pick(Entry):
    """One of several results of a call.

    Attributes:
        index: The result's place.
    """

    index: int

    @property
    def source(self) -> Ref:
        """The call."""
        (source,) = self.args
        assert isinstance(source, Ref)
        return source

    @property
    def identity(self) -> Hashable:
        """The place."""
        return self.index

    @property
    def _what(self) -> str:
        return f"result {self.index} of {self.source!r}"


@dataclass(frozen=True)
class Escape:
    """A constant whose value the model took into Python; an error if a buffer that changes turns out to be its source.

    Attributes:
        index: Number of the constant's entry.
        message: What to say then.
    """

    index: int
    message: str


@dataclass(frozen=True, eq=False)
class Recording:
    """One run of a model.

    Attributes:
        entries: In order; ``Ref(i)`` is the value of number ``i``.
        outputs: Numbers of the entries that the model returned, in the order of their slots.
        template: Structure of what the model returned, as `torch_dag_core.graph.structure.pack` gives it.
        sizes: How the model used the sizes of tensors.
        escapes: Constants that became Python values.
        conditions: Under which state of the caller the model computes this, see `torch_dag_core.graph.caller_state`.
    """

    entries: tuple[Entry, ...]
    outputs: tuple[int, ...]
    template: object
    sizes: SizeUse
    escapes: tuple[Escape, ...]
    conditions: tuple[tuple[Any, ...], ...] = ()

    @cached_property
    def inputs(self) -> tuple[Outcome, ...]:
        """What each input was."""
        return tuple(entry.outcome for entry in self.entries if isinstance(entry, Input))

    @cached_property
    def input_shapes(self) -> tuple[Shape, ...]:
        """The shape of each input."""
        return tuple(outcome.shape or () for outcome in self.inputs)

    @cached_property
    def written(self) -> dict[str, list[int]]:
        """Numbers of the entries whose values a buffer takes, by the buffer's name."""
        found: dict[str, list[int]] = {}
        for index, entry in enumerate(self.entries):
            if entry.writes is not None:
                found.setdefault(entry.writes, []).append(index)
        return found

    @cached_property
    def computing(self) -> tuple[int, ...]:
        """Numbers of the entries among whose arguments is a number that was computed from sizes."""
        return tuple(index for index, entry in enumerate(self.entries) if entry.has_expressions)

    @cached_property
    def readers(self) -> tuple[tuple[Entry | None, ...], ...]:
        """The entries that read each entry, in order; None stands for the model's return."""
        found: list[list[Entry | None]] = [[] for _ in self.entries]
        for entry in self.entries:
            for operand in entry.operands:
                found[operand].append(entry)
        for output in self.outputs:
            found[output].append(None)
        return tuple(map(tuple, found))

    def __str__(self) -> str:
        lines = [f"%{index} = {entry}" for index, entry in enumerate(self.entries)]
        return "\n".join([*lines, f"return {', '.join(f'%{output}' for output in self.outputs)}: {self.template!r}"])


def _tensors(argument: Argument) -> int:
    """Return the number of tensors inside a container, and -1 for a tensor itself."""
    if type(argument) is Ref:
        return -1
    return 0 if is_flat((argument,)) else [type(leaf) for leaf in leaves(argument)].count(Ref)


def _described(outcome: Outcome) -> str:
    if outcome.shape is not None:
        return f"{str(outcome.dtype).removeprefix('torch.')} {outcome.shape}"
    return "" if outcome.items is None else f"{len(outcome.items)} results {outcome.items}"
