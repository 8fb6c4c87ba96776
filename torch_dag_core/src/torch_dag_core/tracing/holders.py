"""Places that hold values of a model or of its code, and how their content is copied, compared and put back."""

from __future__ import annotations

import random
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor

MISSING = object()
"""Stands for the value of a name that is not there."""
ATOMS = (int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.device, torch.Size, type)
"""Values that never change."""


class Access(NamedTuple):
    """How the content of a kind of container is copied and put back."""

    read: Callable[[Any], Any]
    write: Callable[[Any, Any], None]


def _access_of_dict(base: Any) -> Access:
    """Return the access to dicts of one class and its subclasses, past what a subclass overrides."""

    def write(target: Any, content: dict[Any, Any]) -> None:
        base.clear(target)
        for key, value in content.items():
            base.__setitem__(target, key, value)

    return Access(dict.copy if base is dict else lambda target: dict(base.items(target)), write)


def _write_list(target: list[Any], content: list[Any]) -> None:
    list.__setitem__(target, slice(None), content)


def _write_set(target: set[Any], content: set[Any]) -> None:
    set.clear(target)
    set.update(target, content)


def _write_deque(target: deque[Any], content: list[Any]) -> None:
    deque.clear(target)
    deque.extend(target, content)


def _write_array(target: Any, content: Any) -> None:
    target[...] = content


def write_cell(target: types.CellType, content: list[Any]) -> None:
    """Put a value back into a cell of a closure."""
    target.cell_contents = content[0]


DICT = _access_of_dict(dict)
CONTAINERS: tuple[tuple[type, Access], ...] = (
    (OrderedDict, _access_of_dict(OrderedDict)),
    (dict, DICT),
    (list, Access(lambda items: list(list.__iter__(items)), _write_list)),
    (set, Access(lambda items: set(set.__iter__(items)), _write_set)),
    (deque, Access(lambda items: list(deque.__iter__(items)), _write_deque)),
)
OPAQUE: tuple[tuple[Callable[[Any], bool], Access], ...] = (
    (lambda v: isinstance(v, random.Random), Access(lambda v: v.getstate(), lambda v, state: v.setstate(state))),
    (lambda v: isinstance(v, torch.Generator), Access(lambda v: v.get_state(), lambda v, state: v.set_state(state))),
    (lambda v: _is_numpy(v, "ndarray"), Access(lambda v: v.copy(), _write_array)),
    (
        lambda v: _is_numpy(v, "Generator"),
        Access(lambda v: v.bit_generator.state, lambda v, state: setattr(v.bit_generator, "state", state)),
    ),
)
"""Objects whose state is one value; each is recognized by a test, so that NumPy need not be imported."""


def _is_numpy(value: Any, name: str) -> bool:
    module = sys.modules.get({"ndarray": "numpy", "Generator": "numpy.random"}[name])
    return module is not None and isinstance(value, getattr(module, name))


class Holder:
    """One place that holds values, and how its content is read and written.

    Attributes:
        path: How the place is called in messages.
        name: Its last part.
        container: The object that holds the values.
        is_module: Whether the values are the attributes of a module.
    """

    def __init__(self, path: str, name: str, container: Any, access: Access, *, is_module: bool = False) -> None:
        self.path, self.name, self.container, self.is_module = path, name, container, is_module
        self._access = access
        self.is_namespace = False

    def read(self) -> Any:
        """Return a shallow copy of the content."""
        return self._access.read(self.container)

    def write(self, content: Any) -> None:
        """Put a content back, where it is another one now."""
        if not _unchanged(self.read(), content):
            self._access.write(self.container, content)

    def path_of(self, key: Any) -> str:
        """Return how the value under ``key`` is called in messages."""
        if key is None:
            return self.path
        if self.is_namespace:
            return f"{self.path}.{key}" if self.path else str(key)
        return f"{self.path}[{key!r}]"

    def differences(self, content: Any) -> Iterator[tuple[Any, Any, Any]]:
        """Iterate over (key, value in ``content``, value now) of what is neither one object nor equal constants."""
        now = self.read()
        if _unchanged(now, content):
            return
        if isinstance(content, dict) and isinstance(now, dict):
            pairs: Any = ((key, content.get(key, MISSING), now.get(key, MISSING)) for key in {**content, **now})
        elif isinstance(content, list) and isinstance(now, list) and len(content) == len(now):
            pairs = ((key, old, new) for key, (old, new) in enumerate(zip(content, now, strict=True)))
        else:
            pairs = [(None, content, now)]
        for key, old, new in pairs:
            if not _same(old, new):
                yield key, old, new


def _unchanged(now: Any, before: Any) -> bool:
    """Tell whether two contents are the same objects in the same order; most are, so this has to be quick."""
    if type(now) is dict and type(before) is dict:
        return len(now) == len(before) and all(map(is_, now, before)) and all(map(is_, now.values(), before.values()))
    if type(now) is list and type(before) is list:
        return len(now) == len(before) and all(map(is_, now, before))
    return _same(now, before)


def _same(old: Any, new: Any) -> bool:
    """Tell whether two values are one object or equal constants."""
    if old is new:
        return True
    compare = next((compare for kind, compare in _COMPARISONS if isinstance(old, kind)), None)
    if type(old) is type(new) and compare is not None:
        return bool(compare(old, new))
    return _is_numpy(old, "ndarray") and _is_numpy(new, "ndarray") and _same_array(old, new)


def _same_array(old: Any, new: Any) -> bool:
    same = old.dtype == new.dtype and old.shape == new.shape
    return bool(same and not old.dtype.hasobject and old.tobytes() == new.tobytes())


def _same_state(old: Tensor, new: Tensor) -> bool:
    """Compare states of generators, which are tensors of bytes; other tensors are the same only as one object."""
    return old.dtype == new.dtype == torch.uint8 and torch.equal(old, new)


_COMPARISONS: tuple[tuple[Any, Callable[[Any, Any], bool]], ...] = (
    (tuple, lambda old, new: len(old) == len(new) and all(map(_same, old, new))),
    (set, lambda old, new: set(map(id, old)) == set(map(id, new))),
    ((float, complex), lambda old, new: old == new or repr(old) == repr(new)),
    (ATOMS, lambda old, new: old == new),
    (Tensor, _same_state),
    (dict, lambda old, new: old.keys() == new.keys() and all(_same(value, new[key]) for key, value in old.items())),
)
"""When two values of one class are the same; dicts are states of NumPy's generators."""
