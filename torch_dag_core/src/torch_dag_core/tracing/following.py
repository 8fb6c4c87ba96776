"""Builtins and functions of ``math`` that follow sizes while a model is traced.

``len(x)``, ``math.gcd(n, 8)`` and ``range(n)`` read the value of an int where no subclass of int can see it, and
``int(n)`` always returns an ordinary int. For the length of a trace they are replaced: builtin functions, those of
``math``, ``range`` and ``torch.Size`` everywhere, ``int`` and ``float`` in the namespaces that call them on sizes. A
function under ``functools.lru_cache`` that such a namespace calls on sizes computes anew.
Calls from other threads than the trace's reach the originals.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import math
import operator
from collections.abc import Callable, Iterable, Iterator
from threading import get_ident
from types import new_class
from typing import Any, TypeAlias

import torch

from torch_dag_core.graph.conditions import OPERATORS
from torch_dag_core.graph.nested import leaves
from torch_dag_core.tracing.expressions import Scope
from torch_dag_core.tracing.namespaces import NAMES_ON_NUMBERS, ON_NUMBERS, Scopes, cached_functions
from torch_dag_core.tracing.restoring import undoing
from torch_dag_core.tracing.settled import PLAIN, SETTLING, plain
from torch_dag_core.tracing.size_reads import TracedShape
from torch_dag_core.tracing.sizes import Traced, TracedFloat, TracedInt, ordinary

Function: TypeAlias = Callable[..., Any]
"""A builtin, or what stands in for one."""
_BUILTINS: dict[str, Function] = {name: getattr(builtins, name) for name in ("bin", "chr", "hex", "oct")}
_OPERATIONS = {"gcd": 2, "lcm": 2, "isqrt": 1, "sqrt": 1, "log": 1, "log2": 1, "pow": 2}
"""The functions that are operators of conditions, and with how many arguments."""
_OF_CACHES = ("cache_info", "cache_clear", "cache_parameters")
"""What a function has under ``functools.lru_cache``."""


class StandsIn(type):
    """The type of classes that pass for a builtin type wherever it is tested for."""

    builtin: Any

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]) -> Any:
        """Return the class; one that is derived from a stand-in gets the builtin type as its base."""
        real = tuple(base.builtin if isinstance(base, StandsIn) else base for base in bases)
        return super().__new__(cls, name, bases, namespace) if real == bases else new_class(
            name, real, exec_body=lambda body: body.update(namespace)
        )  # fmt: skip

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.builtin)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls.builtin)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is cls.builtin

    def __hash__(cls) -> int:
        return hash(cls.builtin)

    def __getattr__(cls, name: str) -> object:
        return getattr(cls.builtin, name)


class _Int(StandsIn):
    def __call__(cls, *args: Any, **kwargs: Any) -> object:
        number = args[0] if len(args) == 1 else None
        if isinstance(number, (TracedInt, TracedFloat)):
            return math.trunc(number)
        return cls.builtin(*args, **kwargs)


class _Float(StandsIn):
    def __call__(cls, *args: Any) -> object:
        number = args[0] if len(args) == 1 else None
        if isinstance(number, TracedInt):
            return number.log.follow(float(ordinary(number)), "float", number)
        return number if isinstance(number, TracedFloat) else cls.builtin(*args)


class _Range(StandsIn):
    def __call__(cls, *args: object) -> object:
        _lose(args)
        return cls.builtin(*plain(args))


class _Size(StandsIn):
    def __call__(cls, sizes: Iterable[int] = ()) -> object:
        items = tuple(sizes)
        return TracedShape(items) if any(isinstance(item, Traced) for item in items) else cls.builtin(items)


class FollowingInt(metaclass=_Int):
    """``int`` in a namespace that calls it on sizes."""

    builtin = int


class FollowingFloat(metaclass=_Float):
    """``float`` in a namespace that calls it on sizes."""

    builtin = float


class FollowingRange(metaclass=_Range):
    """``range``, which repeats something as often as a size says."""

    builtin = range


class FollowingSize(metaclass=_Size):
    """``torch.Size``, whose ``numel`` reads the values of sizes."""

    builtin = torch.Size


_TYPES: dict[str, Function] = {"int": FollowingInt, "float": FollowingFloat}
for _kind in (_Int, _Float, _Range, _Size):
    # A model may hand ``int`` to torch as a dtype.
    PLAIN[_kind] = SETTLING[_kind] = operator.attrgetter("builtin")


@contextlib.contextmanager
def following(length: Function, scopes: Scopes) -> Iterator[None]:
    """Follow sizes through builtins and functions of ``math`` inside the block.

    Args:
        length: Stands in for ``len``.
        scopes: Namespaces with names of their own for what is replaced.
    """
    _note_builtins()
    patches = Patches()
    functions = {name: _followed(name, function) for name, function in ON_NUMBERS.items()}
    with undoing(patches.undo):
        patches.put(vars(builtins), {name: _followed(name, function) for name, function in _BUILTINS.items()})
        patches.put(vars(builtins), {"len": _here(length, len), "range": FollowingRange})
        patches.put(vars(operator), {"index": _followed("index", operator.index)})
        patches.put(vars(torch), {"Size": FollowingSize})
        patches.put(vars(math), functions)
        for scope in scopes.converting:
            patches.put(scope, _TYPES | {name: _uncached(each) for name, each in cached_functions(scope).items()})
        for scope, name in scopes.imported:
            if id(scope.get(name)) in NAMES_ON_NUMBERS:
                patches.put(scope, {name: functions[NAMES_ON_NUMBERS[id(scope[name])]]})
        yield


def _note_builtins() -> None:
    """Let torch's compiler list the builtins before they are replaced, since it knows them by identity later on."""
    from torch._dynamo.trace_rules import is_builtin_callable

    is_builtin_callable(len)


class Patches:
    """Replaced names of namespaces."""

    def __init__(self) -> None:
        self._made: list[tuple[Scope, dict[str, Function], Scope]] = []

    def put(self, scope: Scope, values: dict[str, Function]) -> None:
        """Give names other values."""
        # Noted first: an interrupt after the change finds it in the list.
        self._made.append((scope, values, {name: scope[name] for name in values if name in scope}))
        scope.update(values)

    def undo(self) -> None:
        """Give the names the values from before, last first, unless others replaced them in the meantime."""
        for scope, values, before in reversed(self._made):
            for name in [name for name, value in values.items() if scope.get(name) is value]:
                if name in before:
                    scope[name] = before[name]
                else:
                    del scope[name]


def _here(stand_in: Function, original: Function) -> Function:
    """Return a function that calls the stand-in in this thread, and the original in every other one."""
    thread = get_ident()

    def call(*args: object, **kwargs: object) -> object:
        return (stand_in if get_ident() == thread else original)(*args, **kwargs)

    return call


def _followed(name: str, function: Function) -> Function:
    """Return a function that follows sizes, or records their loss; other numbers go to the original."""
    operation = "power" if name == "pow" else name

    def followed(*args: Any, **kwargs: Any) -> object:
        numbers = [value for value in (*args, *kwargs.values()) if isinstance(value, Traced)]
        if not numbers:
            return function(*args, **kwargs)
        result = function(*plain(args), **plain(kwargs))
        if len(args) == _OPERATIONS.get(name) and operation in OPERATORS:
            return numbers[0].log.follow(result, operation, *args)
        _lose(numbers)
        return result

    return followed


def _uncached(function: Any) -> Function:
    """Return a function with a cache that computes anew for sizes, which are no keys."""

    def anew(*args: object, **kwargs: object) -> object:
        is_traced = any(isinstance(leaf, Traced) for leaf in leaves((args, kwargs)))
        return (function.__wrapped__ if is_traced else function)(*args, **kwargs)

    call = functools.wraps(function)(_here(anew, function))
    vars(call).update({name: getattr(function, name) for name in _OF_CACHES})
    return call


def _lose(values: Iterable[object]) -> None:
    for value in values:
        if isinstance(value, Traced):
            value.lose()
