"""Runs of one call without data, and what they say of the operators that the call makes and of what autocast casts.

Autocast knows no meta device, so the operands of a run say that they lie on the device of the model, and hand the
operators that they meet on to the meta device. What an operator is called with is written as a term. Autocast that
casts an operand, or one whose numbers were only rearranged, leads to the same terms as an operand cast before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, ClassVar, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from torch_dag_core.graph.nested import leaves, map_leaves
from torch_dag_core.tracing.execution import META
from torch_dag_core.tracing.recording import Live

Given: TypeAlias = "tuple[tuple[Live, ...], dict[str, Live]]"
"""Arguments by position and by name."""
_CAST = "aten._to_copy.default"
_REARRANGING = frozenset({
    "aten.view.default", "aten._unsafe_view.default", "aten.permute.default", "aten.transpose.int", "aten.t.default",
    "aten.unsqueeze.default", "aten.squeeze.default", "aten.squeeze.dim", "aten.squeeze.dims", "aten.alias.default",
    "aten.detach.default", "aten.clone.default",
})  # fmt: skip
"""Operators whose result has each number of the operand once: they give the same before a cast as after it."""


class Casts(NamedTuple):
    """What autocast does to one call.

    Attributes:
        dtypes: What operands become, by their places among the leaves of the arguments.
        dtype: A ``dtype=`` that the function is called with.
    """

    dtypes: dict[int, torch.dtype]
    dtype: torch.dtype | None = None

    def made_in(self, given: Given, cast: Callable[[Tensor, torch.dtype], Live]) -> Given:
        """Return the arguments with ``cast(operand, dtype)`` in place of the operands that are cast."""
        places = count()

        def cast_at(leaf: Live) -> Live:
            dtype = self.dtypes.get(next(places))
            return cast(leaf, dtype) if dtype is not None and isinstance(leaf, Tensor) else leaf

        args, kwargs = map_leaves(given, cast_at)
        return args, kwargs if self.dtype is None else {**kwargs, "dtype": self.dtype}


@dataclass
class Terms:
    """Terms by number: equal ones have the same, whichever run they came up in."""

    _numbers: dict[Hashable, int] = field(default_factory=dict)
    _terms: list[tuple[Any, ...]] = field(default_factory=list)

    def number(self, *term: Any) -> int:
        """Return the number of a term."""
        if term not in self._numbers:
            self._numbers[term] = len(self._terms)
            self._terms.append(term)
        return self._numbers[term]

    def cast(self, number: int, dtype: torch.dtype) -> tuple[int, int] | None:
        """Return the cast of a term and the place of the operand that is in it; None where it is a result."""
        kind, *rest = self._terms[number]
        if kind == "operand":
            return self.number("cast", rest[0], dtype), rest[0]
        below = self.cast(rest[-1], dtype) if kind == "rearranged" else None
        return None if below is None else (self.number(kind, *rest[:-1], below[0]), below[1])


class _Operand(Tensor):
    """A tensor without data that says it lies on a device.

    Attributes:
        inside: The tensor on the meta device.
        term: The number of its term.
    """

    inside: Tensor
    term: int
    __torch_function__: ClassVar[Any] = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Refuse to be used outside of a run."""
        raise NotImplementedError


def _operand(inside: Tensor, term: int, device: torch.device) -> _Operand:
    made: _Operand = Tensor._make_wrapper_subclass(
        _Operand, inside.shape, strides=inside.stride(), dtype=inside.dtype, device=device
    )
    made.inside, made.term = inside, term
    return made


class CastRun(TorchDispatchMode):
    """One run of a call.

    Attributes:
        device: The device that the operands say they lie on.
        casts: The place of each operand that was cast on the way, and the type that it was cast to, in order.
        names: The operators that were called, but for casts of operands and those that rearrange numbers.
        layouts: The strides of their operands.
        calls: Their terms.
        written: The operands that the call writes to: place, and term afterwards.
        result: The text of what it returns.
    """

    def __init__(self, terms: Terms, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._terms, self.device = terms, device
        self.casts: list[tuple[int, torch.dtype]] = []
        self.names: set[str] = set()
        self.layouts: list[list[tuple[int, ...]]] = []
        self.calls: list[int] = []
        self.written: dict[int, int] = {}
        self.result = ""

    def call(self, function: Callable[..., Any], given: Given, casts: Casts, *, autocast: bool) -> CastRun:
        """Make a call, given casts that are made before it, under the autocast of this thread or without it."""
        operands: dict[int, _Operand] = {}
        places = count()

        def prepared(leaf: Live) -> Live:
            place = next(places)
            if isinstance(leaf, Tensor):
                operands[place] = leaf = self._prepared(leaf, place, casts.dtypes.get(place))
            return leaf

        args, kwargs = map_leaves(given, prepared)
        named = kwargs if casts.dtype is None else {**kwargs, "dtype": casts.dtype}
        before = {place: operand.term for place, operand in operands.items()}
        with self, contextlib.nullcontext() if autocast else torch._C._DisableAutocast():
            result = function(*args, **named)
        self.written = {place: each.term for place, each in operands.items() if each.term != before[place]}
        self.result = _text(result)
        return self

    def is_same_as(self, other: CastRun) -> bool:
        """Tell whether both made the same calls, strides aside, with the same effect."""
        return (self.calls, self.written, self.result) == (other.calls, other.written, other.result)

    def _prepared(self, tensor: Tensor, place: int, dtype: torch.dtype | None) -> _Operand:
        inside = tensor.to(META)
        if dtype is None:
            return _operand(inside, self._terms.number("operand", place), self.device)
        return _operand(inside.to(dtype), self._terms.number("cast", place, dtype), self.device)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator on the meta device, and write its term."""
        del types
        given = args, kwargs or {}
        args, kwargs = map_leaves(given, _inside)
        result = func(*args, **kwargs)
        term = self._term(str(func), *given)
        operands = {id(leaf.inside): leaf for leaf in leaves(given) if isinstance(leaf, _Operand)}
        places: Iterator[int] = count()
        return map_leaves(result, lambda leaf: self._wrapped(leaf, term, next(places), operands))

    def _wrapped(self, value: Any, term: int, place: int, operands: dict[int, _Operand]) -> Any:
        """Return a result as an operand of what follows; one that was written to stays the same object."""
        if not isinstance(value, Tensor):
            return value
        number = self._terms.number("item", place, term) if place else term
        if id(value) not in operands:
            return _operand(value, number, self.device)
        operands[id(value)].term = number
        return operands[id(value)]

    def _term(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
        first = args[0] if args else None
        if isinstance(first, _Operand):
            cast = self._terms.cast(first.term, kwargs["dtype"]) if name == _CAST and set(kwargs) == {"dtype"} else None
            if cast is not None:
                self.casts.append((cast[1], kwargs["dtype"]))
                return cast[0]
            if name in _REARRANGING:
                return self._terms.number("rearranged", name, _text((args[1:], kwargs)), first.term)
            if kwargs.get("dtype") == first.dtype:
                kwargs = {key: value for key, value in kwargs.items() if key != "dtype"}
        self.names.add(name)
        self.layouts.append([leaf.stride() for leaf in leaves((args, kwargs)) if isinstance(leaf, _Operand)])
        self.calls.append(self._terms.number("call", name, _text((args, kwargs))))
        return self.calls[-1]


def _text(value: Any) -> str:
    return repr(map_leaves(value, _described))


def _described(leaf: Any) -> object:
    return f"%{leaf.term}: {leaf.dtype} {tuple(leaf.shape)}" if isinstance(leaf, _Operand) else leaf


def _inside(leaf: Any) -> Any:
    if isinstance(leaf, _Operand):
        return leaf.inside
    if isinstance(leaf, Tensor):
        return leaf.to(META)
    return META if isinstance(leaf, torch.device) else leaf
