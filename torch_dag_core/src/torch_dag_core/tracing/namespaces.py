"""Global namespaces of loaded modules in which builtins and functions of ``math`` have to be replaced one by one."""

from __future__ import annotations

import dis
import itertools
import math
import sys
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import NamedTuple

from torch_dag_core.tracing.expressions import Scope

CONVERSIONS = frozenset({"int", "float"})
"""Builtin types that are called on sizes, but also stand in annotations and tests of types everywhere."""
ON_NUMBERS = {name: getattr(math, name) for name in (
    "gcd", "lcm", "isqrt", "sqrt", "log", "log2", "log10", "log1p", "exp", "pow", "comb", "perm", "factorial", "fmod",
    "copysign", "ldexp", "frexp", "modf", "remainder", "hypot", "fabs", "isclose",
)}  # fmt: skip
"""The functions of ``math`` that read a size's value; ``floor``, ``ceil`` and ``prod`` ask the number instead."""
_LIBRARIES = ("torch", "torch_dag_core", "builtins")


class Scopes(NamedTuple):
    """Global namespaces in which names are replaced for the length of a trace.

    Attributes:
        converting: Those whose ``int`` and ``float`` were called on sizes, as `note_scope` found them.
        imported: Those that imported functions of ``math`` by name, and the names.
    """

    converting: tuple[Scope, ...] = ()
    imported: tuple[tuple[Scope, str], ...] = ()


NO_SCOPES = Scopes()


def imported_functions() -> tuple[tuple[Scope, str], ...]:
    """Return where functions of ``math`` were imported from it by name: namespaces, and the names."""
    modules = [module for name, module in sys.modules.copy().items() if name.partition(".")[0] not in _LIBRARIES]
    namespaces = [getattr(module, "__dict__", None) for module in modules]
    # A module may stand in `sys.modules` under several names.
    scopes = {id(scope): scope for scope in namespaces if isinstance(scope, dict) and scope is not vars(math)}
    names = ON_NUMBERS.keys()
    found = ((scope, name) for scope in scopes.values() for name in names & scope.keys())
    return tuple((scope, name) for scope, name in found if scope[name] is ON_NUMBERS[name])


def note_scope(scopes: list[Scope], name: str) -> None:
    """Note the namespace of the code that called the builtin ``name`` on a size, where a stand-in would serve."""
    frame = sys._getframe(2)
    scope, code = frame.f_globals, frame.f_code
    is_library = str(scope.get("__name__")).partition(".")[0] in _LIBRARIES
    if is_library or name not in code.co_names or name in scope or holds(scopes, scope):
        return
    if not any(map(_tests_identity, _codes_of(scope))):
        scopes.append(scope)


def holds(scopes: list[Scope] | tuple[Scope, ...], scope: Scope) -> bool:
    """Tell whether this very namespace is among others."""
    return any(scope is known for known in scopes)


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
    if CONVERSIONS.isdisjoint(code.co_names):
        return False
    steps = list(dis.get_instructions(code))
    return any(str(step.argval) in CONVERSIONS and after.opname == "IS_OP" for step, after in itertools.pairwise(steps))
