"""Global names of loaded modules that refer to certain functions, whatever the names are: ``from time import time``."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from typing import NamedTuple

from torch_dag_core.tracing.expressions import Scope


class Alias(NamedTuple):
    """One global name.

    Attributes:
        scope: The global namespace.
        name: The name in it.
        module: The name of the module.
    """

    scope: Scope
    name: str
    module: str


class _Scanned(NamedTuple):
    """What a namespace had when it was looked through; it is looked through again when its size is another."""

    scope: int
    size: int
    names: tuple[str, ...]


_scanned: dict[str, _Scanned] = {}
"""By module, for the functions whose ids are `_wanted`; looking through thousands of modules takes 10 ms."""
_wanted: frozenset[int] = frozenset()


def aliases(wanted: Collection[int], left_out: frozenset[str], changing: Collection[str]) -> Iterator[Alias]:
    """Yield the names of objects with the ids ``wanted``, each namespace once.

    Args:
        wanted: Ids of objects that stay alive.
        left_out: Packages that are not looked at.
        changing: Modules that are looked through at every call, since a name may have got another value.
    """
    global _wanted  # noqa: PLW0603  the cache is of the process, as the modules are
    ids = frozenset(wanted)
    if ids != _wanted:
        _scanned.clear()
        _wanted = ids
    seen: set[int] = set()
    for module, loaded in sys.modules.copy().items():
        scope = getattr(loaded, "__dict__", None)
        # A module may stand in `sys.modules` under several names.
        if not isinstance(scope, dict) or id(scope) in seen or module.partition(".")[0] in left_out:
            continue
        seen.add(id(scope))
        known = _scanned.get(module)
        if known is None or known[:2] != (id(scope), len(scope)) or module in changing:
            known = _scanned[module] = _Scanned(id(scope), len(scope), _names(scope, ids))
        for name in known.names:
            if id(scope.get(name)) in ids:
                yield Alias(scope, name, module)


def _names(scope: Scope, ids: frozenset[int]) -> tuple[str, ...]:
    now = scope.copy()  # other threads may define something
    if ids.isdisjoint(map(id, now.values())):
        return ()
    return tuple(name for name, value in now.items() if id(value) in ids)
