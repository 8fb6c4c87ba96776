"""The places in which Python code keeps values, with one way to read, compare and restore each kind of them.

A place is the content of a dict, list, set or deque, the attributes of an object, a cell of a closure, or the state of
a random generator. `Holder.read` copies its content, `Holder.differences` tells what has changed since, and
`Holder.write` puts the copy back. Nothing here calls methods that a model's own classes override.
"""

from __future__ import annotations

import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from operator import is_
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from torch_dag_core.tracing.sources import is_numpy, is_python_generator

MISSING = object()
"""Stands for the value of a name that is not there."""
ATOMS = (int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.device, torch.Size, type)
"""Classes whose values never change."""
Namespace: TypeAlias = dict[str, object]
Difference: TypeAlias = tuple[Hashable, object, object]
"""A key, the value under it before, and the value now; the key is None for content that has no keys."""


class Access(NamedTuple):
    """How the content of one kind of place is copied and put back; both take the object, which is of that kind."""

    read: Callable[[Any], object]
    write: Callable[[Any, Any], None]


def _access_of_dict(base: type[dict[Hashable, object]]) -> Access:
    """Return the access to dicts of one class and its subclasses, past the methods that a subclass overrides."""

    def write(target: dict[Hashable, object], content: dict[Hashable, object]) -> None:
        base.clear(target)
        for key, value in content.items():
            base.__setitem__(target, key, value)

    return Access(dict.copy if base is dict else lambda target: dict(base.items(target)), write)


def _write_list(target: list[object], content: list[object]) -> None:
    list.__setitem__(target, slice(None), content)


def _write_set(target: set[Hashable], content: set[Hashable]) -> None:
    set.clear(target)
    set.update(target, content)


def _write_deque(target: deque[object], content: list[object]) -> None:
    deque.clear(target)
    deque.extend(target, content)


def _write_array(target: Any, content: object) -> None:
    target[...] = content


def write_cell(target: types.CellType, content: list[object]) -> None:
    """Put a value back into a cell of a closure."""
    target.cell_contents = content[0]


def _is_array(value: object) -> bool:
    module = sys.modules.get("numpy")
    return module is not None and isinstance(value, module.ndarray)


DICT = _access_of_dict(dict)
CONTAINERS: tuple[tuple[type, Access], ...] = (
    (OrderedDict, _access_of_dict(OrderedDict)),
    (dict, DICT),
    (list, Access(lambda items: list(list.__iter__(items)), _write_list)),
    (set, Access(lambda items: set(set.__iter__(items)), _write_set)),
    (deque, Access(lambda items: list(deque.__iter__(items)), _write_deque)),
)
"""How containers are accessed, subclasses before their bases."""
OPAQUE: tuple[tuple[Callable[[object], bool], Access], ...] = (
    (is_python_generator, Access(lambda v: v.getstate(), lambda v, state: v.setstate(state))),
    (lambda v: isinstance(v, torch.Generator), Access(lambda v: v.get_state(), lambda v, state: v.set_state(state))),
    (_is_array, Access(lambda v: v.copy(), _write_array)),
    (
        lambda v: is_numpy(v, "Generator"),
        Access(lambda v: v.bit_generator.state, lambda v, state: setattr(v.bit_generator, "state", state)),
    ),
    (
        lambda v: is_numpy(v, "RandomState"),
        Access(lambda v: v.get_state(legacy=False), lambda v, state: v.set_state(state)),
    ),
)
"""Objects whose state is one value; each is recognized by a test, so that NumPy need not be imported."""


class Holder:
    """One place that holds values.

    Attributes:
        path: What the place is called in messages.
        name: The last part of the path.
        container: The object that holds the values; None for names in a namespace.
        is_module: Whether the values are the attributes of a module.
        is_namespace: Whether keys are names, which messages join by dots.
    """

    def __init__(
        self, path: str, name: str, container: object, access: Access, *, is_module: bool = False,
        is_namespace: bool = False,
    ) -> None:  # fmt: skip
        self.path, self.name, self.container = path, name, container
        self.is_module, self.is_namespace = is_module, is_namespace
        self._access = access

    def read(self) -> object:
        """Return a shallow copy of the content."""
        return self._access.read(self.container)

    def write(self, content: object) -> None:
        """Put a content back, unless it is there already."""
        if not _unchanged(self._now(), content):
            self._access.write(self.container, content)

    def _now(self) -> object:
        """Return the content to be compared; a dict as it is, which is faster than a copy."""
        return self.container if type(self.container) is dict and self._access is DICT else self.read()

    def path_of(self, key: Hashable) -> str:
        """Return what the value under a key is called in messages."""
        if key is None:
            return self.path
        if self.is_namespace:
            return f"{self.path}.{key}" if self.path else str(key)
        return f"{self.path}[{key!r}]"

    def differences(self, content: object) -> Iterator[Difference]:
        """Iterate over the values that are neither the same objects as in ``content`` nor equal constants."""
        now = self._now()
        if not _unchanged(now, content):
            yield from (pair for pair in _pairs(content, now) if not _same(*pair[1:]))


def _pairs(before: object, now: object) -> Iterable[Difference]:
    if isinstance(before, dict) and isinstance(now, dict):
        return ((key, before.get(key, MISSING), now.get(key, MISSING)) for key in {**before, **now})
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        return ((key, old, new) for key, (old, new) in enumerate(zip(before, now, strict=True)))
    return [(None, before, now)]


def _unchanged(now: object, before: object) -> bool:
    """Tell whether two contents are the same objects in the same order; most are, so this has to be quick."""
    if type(now) is dict and type(before) is dict:
        return len(now) == len(before) and all(map(is_, now, before)) and all(map(is_, now.values(), before.values()))
    if type(now) is list and type(before) is list:
        return len(now) == len(before) and all(map(is_, now, before))
    return _same(now, before)


def _same(old: object, new: object) -> bool:
    """Tell whether two values are one object or equal constants."""
    if old is new:
        return True
    compare = next((compare for kind, compare in _COMPARISONS if isinstance(old, kind)), None)
    if type(old) is type(new) and compare is not None:
        return bool(compare(old, new))
    return _is_array(old) and _is_array(new) and _same_array(old, new)


def _same_array(old: Any, new: Any) -> bool:
    same = old.dtype == new.dtype and old.shape == new.shape
    return bool(same and not old.dtype.hasobject and old.tobytes() == new.tobytes())


def _same_state(old: Tensor, new: Tensor) -> bool:
    """Compare states of generators, which are tensors of bytes; other tensors are the same only as one object."""
    return old.dtype == new.dtype == torch.uint8 and torch.equal(old, new)


def _same_mapping(old: Mapping[Hashable, object], new: Mapping[Hashable, object]) -> bool:
    return old.keys() == new.keys() and all(_same(value, new[key]) for key, value in old.items())


_COMPARISONS: tuple[tuple[type | tuple[type, ...], Callable[[Any, Any], bool]], ...] = (
    (tuple, lambda old, new: len(old) == len(new) and all(map(_same, old, new))),
    (set, lambda old, new: set(map(id, old)) == set(map(id, new))),
    ((float, complex), lambda old, new: old == new or repr(old) == repr(new)),
    (ATOMS, lambda old, new: old == new),
    (Tensor, _same_state),
    (dict, _same_mapping),
)
"""When two values of one class are the same; dicts are states of NumPy's generators."""
