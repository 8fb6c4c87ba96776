"""What Python code of a model can reach and change: containers, objects, closures, globals, and tensors in them."""

from __future__ import annotations

import functools
import random
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_MISSING = object()
_LIBRARIES = frozenset({*sys.stdlib_module_names, "torch", "torch_dag_core", "numpy"})
_MODULE_DICTS = ("_parameters", "_buffers", "_modules")
_ATOMS = (int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.device, torch.Size, type)


class Access(NamedTuple):
    """How the content of a kind of container is copied and put back."""

    read: Callable[[Any], Any]
    write: Callable[[Any, Any], None]


def _write_dict(target: dict[Any, Any], content: dict[Any, Any]) -> None:
    base: Any = OrderedDict if isinstance(target, OrderedDict) else dict
    base.clear(target)
    for key, value in content.items():
        base.__setitem__(target, key, value)


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


def _write_cell(target: types.CellType, content: list[Any]) -> None:
    target.cell_contents = content[0]


_CONTAINERS: tuple[tuple[type, Access], ...] = (
    (dict, Access(lambda d: dict(dict.items(d)), _write_dict)),
    (list, Access(lambda items: list(list.__iter__(items)), _write_list)),
    (set, Access(lambda items: set(set.__iter__(items)), _write_set)),
    (deque, Access(lambda items: list(deque.__iter__(items)), _write_deque)),
)
_OPAQUE: tuple[tuple[Callable[[Any], bool], Access], ...] = (
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
        if next(self.differences(content, exactly=True), None) is not None:
            self._access.write(self.container, content)

    def path_of(self, key: Any) -> str:
        """Return how the value under ``key`` is called in messages."""
        if key is None:
            return self.path
        if self.is_namespace:
            return f"{self.path}.{key}" if self.path else str(key)
        return f"{self.path}[{key!r}]"

    def differences(self, content: Any, *, exactly: bool = False) -> Iterator[tuple[Any, Any, Any]]:
        """Iterate over (key, value in ``content``, value now); equal constants differ only ``exactly``."""
        now = self.read()
        if isinstance(content, dict) and isinstance(now, dict):
            if exactly and list(map(id, content)) != list(map(id, now)):
                yield None, content, now  # the order of the keys counts too
            pairs: Any = ((key, content.get(key, _MISSING), now.get(key, _MISSING)) for key in {**content, **now})
        elif isinstance(content, list) and isinstance(now, list) and len(content) == len(now):
            pairs = ((key, old, new) for key, (old, new) in enumerate(zip(content, now, strict=True)))
        else:
            pairs, exactly = [(None, content, now)], False
        for key, old, new in pairs:
            if old is not new and (exactly or not _same(old, new)):
                yield key, old, new


def _same(old: Any, new: Any) -> bool:
    """Tell whether two values are equal constants."""
    if isinstance(old, Tensor) or isinstance(new, Tensor):
        if old is new:
            return True
        states = type(old) is type(new) is Tensor and old.dtype == new.dtype == torch.uint8  # state of a generator
        return states and torch.equal(old, new)
    if type(old) is not type(new):
        return False
    if isinstance(old, tuple):
        return len(old) == len(new) and all(map(_same, old, new))
    if isinstance(old, set):
        return set(map(id, old)) == set(map(id, new))
    if isinstance(old, _ATOMS):
        return bool(old == new) or (old != old and new != new)
    return bool(_is_numpy(old, "ndarray") and old.shape == new.shape and (old == new).all())


class Reachable:
    """Walks from the modules of a model to everything that a forward may change.

    Attributes:
        holders: Containers, attributes of modules and objects, cells of closures, class attributes and globals.
        tensors: Every tensor found, with where it was found.
    """

    def __init__(self, model: nn.Module) -> None:
        self.holders: list[Holder] = []
        self.tensors: list[tuple[str, Tensor]] = []
        self._seen: dict[int, Any] = {}
        self._stack: list[tuple[str, str, Any, bool]] = []
        classes: dict[type, None] = {}
        for path, module in model.named_modules():
            self._stack.append((path, path, module, True))
            classes.update(dict.fromkeys(type(module).__mro__))
        for cls in classes:
            if not _is_library(cls.__module__):
                self._class(cls)
        while self._stack:
            self._visit(*self._stack.pop())

    def _push(self, path: str, name: str, value: Any, *, follows_code: bool) -> None:
        if not isinstance(value, _ATOMS):
            self._stack.append((path, name, value, follows_code))

    def _visit(self, path: str, name: str, value: Any, follows_code: bool) -> None:  # noqa: FBT001
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if isinstance(value, Tensor):
            self.tensors.append((path, value))
            return
        access = next((access for kind, access in _CONTAINERS if isinstance(value, kind)), None)
        if access is not None:
            self._container(path, name, value, access, follows_code=follows_code)
        elif isinstance(value, (tuple, frozenset)):
            for place, item in enumerate(value):
                self._push(f"{path}[{place}]", name, item, follows_code=follows_code)
        elif isinstance(value, types.FunctionType):
            if follows_code and not _is_library(value.__module__):
                self._function(path, value)
        elif isinstance(value, types.MethodType):
            self._push(path, name, value.__self__, follows_code=follows_code)
        elif isinstance(value, functools.partial):
            for item in (value.func, *value.args, *value.keywords.values()):
                self._push(path, name, item, follows_code=follows_code)
        else:
            self._object(path, name, value, follows_code=follows_code)

    def _container(self, path: str, name: str, value: Any, access: Access, *, follows_code: bool) -> None:
        holder = Holder(path, name, value, access)
        self.holders.append(holder)
        content = access.read(value)
        for key, item in list(content.items() if isinstance(content, dict) else enumerate(content)):
            self._push(holder.path_of(key), name, item, follows_code=follows_code)

    def _object(self, path: str, name: str, value: Any, *, follows_code: bool) -> None:
        access = next((access for is_kind, access in _OPAQUE if is_kind(value)), None)
        if access is not None:
            self.holders.append(Holder(path, name, value, access))
            return
        is_module = isinstance(value, nn.Module)
        if not is_module and (_is_library(type(value).__module__) and type(value) is not types.SimpleNamespace):
            return
        attributes = getattr(value, "__dict__", None)
        if not isinstance(attributes, dict):
            return
        holder = Holder(path, name, attributes, _CONTAINERS[0][1], is_module=is_module)
        holder.is_namespace = True
        self.holders.append(holder)
        for key, item in list(attributes.items()):
            if is_module and key in _MODULE_DICTS and isinstance(item, dict):
                self._members(path, key, item)
            else:
                self._push(holder.path_of(key), key, item, follows_code=follows_code)

    def _members(self, path: str, kind: str, members: dict[str, Any]) -> None:
        """Take up the parameters, buffers or submodules of a module."""
        self._seen[id(members)] = members
        holder = Holder(path, kind, members, _CONTAINERS[0][1])
        holder.is_namespace = True
        self.holders.append(holder)
        for name, member in members.items():
            self._push(holder.path_of(name), name, member, follows_code=True)

    # Code ------------------------------------------------------------------------------------------------------

    def _class(self, cls: type) -> None:
        """Take up what methods of a class name, and the attributes of the class that are data."""
        data = {}
        for name, value in list(vars(cls).items()):
            function = _function_in(value)
            if function is not None:
                self._stack.append((f"{cls.__name__}.{name}", name, function, True))
            elif _is_data(name, value):
                data[name] = value
        if data:
            self._names(cls.__name__, data, lambda name, value: setattr(cls, name, value), lambda: vars(cls))

    def _function(self, path: str, function: types.FunctionType) -> None:
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            self._cell(f"{name} of {path}", name, cell)
        names, space = _names_of(function.__code__), function.__globals__
        used = {name: space[name] for name in names if name in space}
        for name, value in used.items():
            if isinstance(value, types.FunctionType):
                self._push(name, name, value, follows_code=True)
        data = {name: value for name, value in used.items() if _is_data(name, value)}
        if data:
            self._names(f"{function.__module__}", data, space.__setitem__, lambda: space)

    def _cell(self, path: str, name: str, cell: types.CellType) -> None:
        if id(cell) in self._seen:
            return
        self._seen[id(cell)] = cell
        try:
            value = cell.cell_contents
        except ValueError:  # not assigned yet
            return
        self.holders.append(Holder(path, name, cell, Access(lambda c: [c.cell_contents], _write_cell)))
        self._push(path, name, value, follows_code=True)

    def _names(
        self, path: str, data: dict[str, Any], write: Callable[[str, Any], None], space: Callable[[], Any]
    ) -> None:
        """Take up some names of a namespace that is too large to be kept as a whole."""

        def read(_: Any) -> dict[str, Any]:
            return {name: space().get(name, _MISSING) for name in data}

        def put_back(_: Any, content: dict[str, Any]) -> None:
            for name, value in content.items():
                if space().get(name, _MISSING) is not value:
                    write(name, value)

        holder = Holder(path, path, None, Access(read, put_back))
        holder.is_namespace = True
        self.holders.append(holder)
        for name, value in data.items():
            self._push(holder.path_of(name), name, value, follows_code=False)


def _function_in(value: Any) -> types.FunctionType | None:
    """Return the function behind a method, property or static method."""
    for attribute in ("__func__", "fget", "func"):
        value = getattr(value, attribute, value)
    value = getattr(value, "__wrapped__", value)
    return value if isinstance(value, types.FunctionType) else None


def _is_data(name: str, value: Any) -> bool:
    """Tell whether a global or an attribute of a class may be state; functions, classes and modules are not."""
    if name.startswith("__") or isinstance(value, (type, types.ModuleType, types.FunctionType, property)):
        return False
    if isinstance(value, (int, float, str, bool, type(None), Tensor, dict, list, set, deque)):
        return True
    return not callable(value) and not _is_library(type(value).__module__)


@functools.lru_cache(maxsize=4096)
def _names_of(code: types.CodeType) -> frozenset[str]:
    """Return the names that a piece of code, and the functions defined in it, look up."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return frozenset(code.co_names).union(*map(_names_of, inner))


def _is_library(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _LIBRARIES
