"""Copies of modules, as `copy.deepcopy` makes them, in a fraction of its time for modules of ordinary state."""

from __future__ import annotations

import copy
from collections import OrderedDict
from copyreg import dispatch_table
from typing import Any, TypeVar

import torch
from torch import nn

T = TypeVar("T")
_IMMUTABLE = frozenset({type(None), bool, int, float, complex, str, bytes, type, torch.dtype, torch.device})
_EMPTY = frozenset({dict, OrderedDict, set, list})
_ORDINARY = {name: getattr(nn.Module, name) for name in ("__reduce__", "__reduce_ex__", "__getstate__", "__new__")}
"""Methods by which a class may decide what its copies are."""


def deep_copy(value: T, known: dict[int, Any]) -> T:
    """Return what ``copy.deepcopy(value, known)`` returns.

    Args:
        value: Anything, a module or tensor most of the time.
        known: Copies by the ids of their originals, shared by calls so that ties stay; takes the new ones.
    """
    if not isinstance(value, nn.Module) or not _is_ordinary(value):
        return copy.deepcopy(value, known)
    if id(value) not in known:
        twin = object.__new__(type(value))
        known[id(value)] = twin
        attributes: dict[str, Any] = nn.Module.__getstate__(value)  # type: ignore[no-untyped-call]
        state = {key: _copied(key, item, known) for key, item in attributes.items()}
        twin.__setstate__(state)  # type: ignore[no-untyped-call]
    found: T = known[id(value)]
    return found


def _is_ordinary(module: nn.Module) -> bool:
    """Tell whether `copy.deepcopy` copies the attributes of a module one by one."""
    cls = type(module)
    has_own = any(getattr(cls, name) is not method for name, method in _ORDINARY.items())
    special = any(hasattr(cls, name) for name in ("__deepcopy__", "__getnewargs__", "__getnewargs_ex__"))
    has_slots = any("__slots__" in vars(base) for base in cls.__mro__)
    return not (has_own or special or has_slots or cls in dispatch_table or "__deepcopy__" in vars(module))


def _copied(key: str, item: Any, known: dict[int, Any]) -> Any:
    kind = type(item)
    if kind in _IMMUTABLE or (kind is tuple and _IMMUTABLE.issuperset(map(type, item))):
        return item
    if id(item) not in known:
        if kind in _EMPTY and not item:
            known[id(item)] = kind()
        elif kind is dict and key in ("_parameters", "_buffers", "_modules"):
            members = known[id(item)] = {}
            members.update((name, deep_copy(member, known)) for name, member in item.items())
        else:
            return copy.deepcopy(item, known)
    return known[id(item)]
