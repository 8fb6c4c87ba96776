"""Builtins and functions of ``math`` that follow sizes while a model is traced.

``len(x)``, ``math.gcd(n, 8)`` and ``range(n)`` read the value of an int where no subclass of int can see it, and
``int(n)`` always returns an ordinary int. For the length of a trace they are replaced: builtin functions, those of
`math`, ``range`` and ``torch.Size`` everywhere, ``int`` and ``float`` in the namespaces that call them on sizes.
"""

from __future__ import annotations

import builtins
import contextlib
import dis
import itertools
import math
import operator
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any, NamedTuple

import torch

from torch_dag_core.graph.conditions import OPERATORS
from torch_dag_core.tracing.sizes import PLAIN, SETTLING, Traced, TracedFloat, TracedInt, TracedShape, plain

Scope = dict[str, Any]
_LIBRARIES = ("torch", "torch_dag_core", "builtins")
_ON_NUMBERS = {name: getattr(math, name) for name in (
    "gcd", "lcm", "isqrt", "sqrt", "log", "log2", "log10", "log1p", "exp", "pow", "comb", "perm", "factorial", "fmod",
    "copysign", "ldexp", "frexp", "modf", "remainder", "hypot", "fabs", "isclose",
)}  # fmt: skip
"""The functions of `math` that take a size's value; ``floor``, ``ceil`` and ``prod`` ask the number instead."""
_BUILTINS = {name: getattr(builtins, name) for name in ("bin", "chr", "hex", "oct")}
_OPERATIONS = {"gcd": 2, "lcm": 2, "isqrt": 1, "sqrt": 1, "log": 1, "log2": 1, "pow": 2}
"""Those that are operations of conditions, and with how many arguments."""


class _StandsIn(type):
    """The type of classes that pass for a builtin type wherever it is tested for."""

    builtin: Any

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.builtin)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls.builtin)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is cls.builtin

    def __hash__(cls) -> int:
        return hash(cls.builtin)

    def __getattr__(cls, name: str) -> Any:
        return getattr(cls.builtin, name)


class _Int(_StandsIn):
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        number = args[0] if len(args) == 1 else None
        if isinstance(number, Traced):
            return number if isinstance(number, TracedInt) else number.__trunc__()  # type: ignore[attr-defined]
        return cls.builtin(*args, **kwargs)


class _Float(_StandsIn):
    def __call__(cls, *args: Any) -> Any:
        number = args[0] if len(args) == 1 else None
        if isinstance(number, TracedInt):
            return number.log.follow(float(plain(number)), "float", number)
        return number if isinstance(number, TracedFloat) else float(*args)


class _Range(_StandsIn):
    def __call__(cls, *args: Any) -> Any:
        _lose(args)
        return cls.builtin(*plain(args))


class _Size(_StandsIn):
    def __call__(cls, sizes: Any = ()) -> Any:
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


_TYPES: dict[str, Any] = {"int": FollowingInt, "float": FollowingFloat}
for _kind in (_Int, _Float, _Range, _Size):
    # A model may hand ``int`` to torch as a dtype.
    PLAIN[_kind] = SETTLING[_kind] = operator.attrgetter("builtin")


class Scopes(NamedTuple):
    """Global namespaces in which builtins are replaced.

    Attributes:
        converting: Those whose ``int`` and ``float`` were called on sizes, as `note_scope` found them.
        imported: Those that imported functions of ``math`` by name, and the names.
    """

    converting: tuple[Scope, ...] = ()
    imported: tuple[tuple[Scope, str], ...] = ()


NO_SCOPES = Scopes()


@contextlib.contextmanager
def following(length: Callable[[Any], Any], scopes: Scopes) -> Iterator[None]:
    """Follow sizes through builtins and functions of ``math`` inside the block; ``length`` stands in for ``len``."""
    with contextlib.ExitStack() as stack:
        losing = {name: _following(name, function) for name, function in _BUILTINS.items()}
        stack.enter_context(_replaced(vars(builtins), {"len": length, "range": FollowingRange, **losing}))
        stack.enter_context(_replaced(vars(operator), {"index": _following("index", operator.index)}))
        stack.enter_context(_replaced(vars(torch), {"Size": FollowingSize}))
        for scope in scopes.converting:
            stack.enter_context(_replaced(scope, _TYPES))
        functions = {name: _following(name, function) for name, function in _ON_NUMBERS.items()}
        stack.enter_context(_replaced(vars(math), functions))
        for scope, name in scopes.imported:
            stack.enter_context(_replaced(scope, {name: functions[name]}))
        yield


def imported_functions() -> tuple[tuple[Scope, str], ...]:
    """Return where functions of ``math`` were imported from it by name: namespaces, and the names."""
    modules = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] not in _LIBRARIES]
    namespaces = [getattr(module, "__dict__", None) for module in modules]
    # A module may stand in `sys.modules` under several names.
    scopes = {id(scope): scope for scope in namespaces if isinstance(scope, dict) and scope is not vars(math)}
    functions = _ON_NUMBERS.items()
    return tuple((scope, name) for scope in scopes.values() for name, given in functions if scope.get(name) is given)


def note_scope(scopes: list[Scope], name: str) -> None:
    """Note the namespace of the code that called the builtin ``name`` on a size, where a stand-in would serve."""
    frame = sys._getframe(2)
    scope, code = frame.f_globals, frame.f_code
    is_library = str(scope.get("__name__")).partition(".")[0] in _LIBRARIES
    if is_library or name not in code.co_names or name in scope or any(scope is known for known in scopes):
        return
    if not any(map(_tests_identity, _codes_of(scope))):
        scopes.append(scope)


def _codes_of(scope: Scope) -> Iterator[CodeType]:
    """Iterate over the code of the functions and methods that a namespace defines."""
    classes = [value for value in scope.values() if isinstance(value, type)]
    values = [*scope.values(), *(value for kind in classes for value in vars(kind).values())]
    stack = [value.__code__ for value in values if isinstance(value, FunctionType) and value.__globals__ is scope]
    while stack:
        code = stack.pop()
        yield code
        stack.extend(constant for constant in code.co_consts if isinstance(constant, CodeType))


def _tests_identity(code: CodeType) -> bool:
    """Tell whether code contains ``... is int``, which no stand-in can answer."""
    if _TYPES.keys().isdisjoint(code.co_names):
        return False
    steps = list(dis.get_instructions(code))
    return any(step.argval in _TYPES and after.opname == "IS_OP" for step, after in itertools.pairwise(steps))


@contextlib.contextmanager
def _replaced(scope: Scope, values: dict[str, Any]) -> Iterator[None]:
    """Give names other values inside the block."""
    before = {name: scope[name] for name in values if name in scope}
    scope.update(values)
    try:
        yield
    finally:
        for name in values.keys() - before.keys():
            scope.pop(name, None)
        scope.update(before)


def _following(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of ``math`` that follows sizes, or records their loss."""
    operation = "power" if name == "pow" else name

    def followed(*args: Any, **kwargs: Any) -> Any:
        numbers = [value for value in (*args, *kwargs.values()) if isinstance(value, Traced)]
        if not numbers:
            return function(*args, **kwargs)
        result = function(*plain(args), **plain(kwargs))
        if len(args) == _OPERATIONS.get(name) and operation in OPERATORS:
            return numbers[0].log.follow(result, operation, *args)
        _lose(numbers)
        return result

    return followed


def _lose(values: Any) -> None:
    for value in values:
        if isinstance(value, Traced):
            value.log.lost(value.expression, plain(value))
