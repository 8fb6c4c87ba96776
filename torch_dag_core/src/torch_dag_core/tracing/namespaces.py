"""Global namespaces of loaded modules in which builtins and functions of ``math`` have to be replaced one by one."""

from __future__ import annotations

import dis
import functools
import itertools
import math
import sys
from collections.abc import Collection, Iterator
from types import CodeType, FunctionType
from typing import Any, NamedTuple

from torch_dag_core.tracing.aliases import aliases
from torch_dag_core.tracing.expressions import Scope
from torch_dag_core.tracing.reachable import is_library
from torch_dag_core.tracing.surroundings import watched_ids

CONVERSIONS = frozenset({"int", "float"})
"""Builtin types that are called on sizes, but also stand in annotations and tests of types everywhere."""
ON_NUMBERS = {name: getattr(math, name) for name in (
    "gcd", "lcm", "isqrt", "sqrt", "log", "log2", "log10", "log1p", "exp", "pow", "comb", "perm", "factorial", "fmod",
    "copysign", "ldexp", "frexp", "modf", "remainder", "hypot", "fabs", "isclose",
)}  # fmt: skip
"""The functions of ``math`` that read a size's value; ``floor``, ``ceil`` and ``prod`` ask the number instead."""
NAMES_ON_NUMBERS = {id(function): name for name, function in ON_NUMBERS.items()}
_LIBRARIES = frozenset({"torch", "torch_dag_core", "builtins"})


class Scopes(NamedTuple):
    """Global namespaces in which names are replaced for the length of a trace.

    Attributes:
        converting: Those whose ``int``, ``float`` or cached functions were called on sizes, as `note_scope` and
            `note_caches` found them.
        imported: Those that imported functions of ``math``, and under which names.
        watched: The same for functions that ask for something outside of the model.
    """

    converting: tuple[Scope, ...] = ()
    imported: tuple[tuple[Scope, str], ...] = ()
    watched: tuple[tuple[Scope, str], ...] = ()


NO_SCOPES = Scopes()


def scopes_of(modules: Collection[str]) -> Scopes:
    """Return where functions of ``math``, and functions that ask for something outside of a model, have global names.

    Args:
        modules: Names of the modules that define a model.
    """
    watched = watched_ids()
    found = [
        alias for alias in aliases({*NAMES_ON_NUMBERS, *watched}, _LIBRARIES, modules) if alias.scope is not vars(math)
    ]  # fmt: skip
    return Scopes(
        imported=tuple(
            (scope, name) for scope, name, _ in found if id(scope[name]) in NAMES_ON_NUMBERS
        ),
        watched=tuple(
            (scope, name) for scope, name, module in found if id(scope[name]) in watched and not is_library(module)
        ),
    )  # fmt: skip


def note_scope(scopes: list[Scope], name: str) -> None:
    """Note the namespace of the code that called the builtin ``name`` on a size, where a stand-in would serve."""
    frame = sys._getframe(2)
    if name in frame.f_code.co_names and name not in frame.f_globals:
        _note(scopes, frame.f_globals)


def note_caches(scopes: list[Scope]) -> None:
    """Note the namespace of the code that looked a size up, where it has functions with a cache."""
    scope = sys._getframe(2).f_globals
    if cached_functions(scope):
        _note(scopes, scope)


def cached_functions(scope: Scope) -> dict[str, Any]:
    """Return the functions under ``functools.lru_cache`` in a namespace, by their names in it."""
    return {name: value for name, value in scope.items() if isinstance(value, functools._lru_cache_wrapper)}


def _note(scopes: list[Scope], scope: Scope) -> None:
    is_library = str(scope.get("__name__")).partition(".")[0] in _LIBRARIES
    if not is_library and not holds(scopes, scope) and not any(map(_tests_identity, _codes_of(scope))):
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
