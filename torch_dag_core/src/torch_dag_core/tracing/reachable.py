"""A walk from the modules of a model to everything that its code can change.

It follows attributes, containers, objects, closures, attributes of classes, and the global variables that methods
name, and collects a `Holder` for each place and every tensor. Objects of torch, NumPy and the standard library are not
looked into.
"""

from __future__ import annotations

import functools
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, cast

from torch import Tensor, nn

from torch_dag_core.tracing.holders import (
    ATOMS,
    CONTAINERS,
    DICT,
    MISSING,
    OPAQUE,
    Access,
    Holder,
    Namespace,
    write_cell,
)
from torch_dag_core.tracing.sources import is_generator, is_global
from torch_dag_core.tracing.submodules import named_submodules

_LIBRARIES = frozenset({*sys.stdlib_module_names, "torch", "torch_dag_core", "numpy"})
_ATOM_CLASSES = frozenset(ATOMS)
_METHODS = (types.BuiltinMethodType, types.MethodType)
_CONTAINER_CLASSES = frozenset({dict, OrderedDict, list, set, deque})
_MODULE_DICTS = ("_parameters", "_buffers", "_modules")
Container: TypeAlias = "dict[object, object] | list[object] | set[object] | deque[object]"


class Reachable:
    """Everything that the forward of a model may change.

    Attributes:
        holders: Containers, attributes of modules and objects, cells of closures, class attributes and globals.
        empty: Attributes that are empty containers, as (holder, name, container). Most attributes of a module are, so
            they are kept without a holder each.
        tensors: Every tensor found, with where it was found.
        functions: The functions that the model may call.
        classes: The classes of its modules.
        seen: All objects that were visited, by their ids.
    """

    def __init__(self, model: nn.Module) -> None:
        self.holders: list[Holder] = []
        self.empty: list[tuple[Holder, str, Container]] = []
        self.tensors: list[tuple[str, Tensor]] = []
        self.functions: list[types.FunctionType] = []
        self.classes: list[type] = []
        self.seen: dict[int, object] = {}
        self._stack: list[tuple[str, str, object, bool]] = []
        classes: dict[type, None] = {}
        for path, module in named_submodules(model):
            self._stack.append((path, path, module, True))
            classes.update(dict.fromkeys(type(module).__mro__))
        for cls in classes:
            if not is_library(cls.__module__):
                self.classes.append(cls)
                self._class(cls)
        while self._stack:
            self._visit(*self._stack.pop())

    def _push(self, path: str, name: str, value: object, *, follows_code: bool) -> None:
        if not isinstance(value, ATOMS):
            self._stack.append((path, name, value, follows_code))

    def _visit(self, path: str, name: str, value: object, follows_code: bool) -> None:  # noqa: FBT001
        if id(value) not in self.seen:
            self.seen[id(value)] = value
            visit = next((visit for kind, visit in _VISITS if isinstance(value, kind)), Reachable._object)
            visit(self, path, name, value, follows_code)

    def _tensor(self, path: str, _: str, value: Tensor, __: bool) -> None:  # noqa: FBT001
        self.tensors.append((path, value))

    def _items(self, path: str, name: str, value: Iterable[object], follows_code: bool) -> None:  # noqa: FBT001
        for place, item in enumerate(value):
            self._push(f"{path}[{place}]", name, item, follows_code=follows_code)

    def _method(self, path: str, name: str, value: types.MethodType, follows_code: bool) -> None:  # noqa: FBT001
        for item in (value.__self__, value.__func__):
            self._push(path, name, item, follows_code=follows_code)

    def _partial(self, path: str, name: str, value: functools.partial[object], follows_code: bool) -> None:  # noqa: FBT001
        for item in (value.func, *value.args, *value.keywords.values()):
            self._push(path, name, item, follows_code=follows_code)

    def _builtin(self, path: str, name: str, value: types.BuiltinMethodType, follows_code: bool) -> None:  # noqa: FBT001
        """Take up the generator behind a method like that of ``draw = random.Random(1).random``."""
        if _draws(value):
            self._push(path, name, value.__self__, follows_code=follows_code)

    def _container(self, path: str, name: str, value: Container, follows_code: bool) -> None:  # noqa: FBT001
        access = next(access for kind, access in CONTAINERS if isinstance(value, kind))
        holder = Holder(path, name, value, access)
        self.holders.append(holder)
        content = access.read(value)
        items = content.items() if isinstance(content, dict) else enumerate(cast("Iterable[object]", content))
        for key, item in list(items):
            self._push(holder.path_of(key), name, item, follows_code=follows_code)

    def _object(self, path: str, name: str, value: object, follows_code: bool) -> None:  # noqa: FBT001
        access = next((access for is_kind, access in OPAQUE if is_kind(value)), None)
        if access is not None:
            self.holders.append(Holder(path, name, value, access))
            return
        is_module = isinstance(value, nn.Module)
        if not is_module and (is_library(type(value).__module__) and type(value) is not types.SimpleNamespace):
            return
        attributes = getattr(value, "__dict__", None)
        if not isinstance(attributes, dict):
            return
        holder = Holder(path, name, attributes, DICT, is_module=is_module, is_namespace=True)
        self.holders.append(holder)
        for key, item in list(attributes.items()):  # a module has some twenty, so this has to be quick
            kind = type(item)
            if kind in _ATOM_CLASSES:
                continue
            if kind in _CONTAINER_CLASSES and not item:
                self.empty.append((holder, key, item))
            elif is_module and key in _MODULE_DICTS and isinstance(item, dict):
                self._members(path, key, item)
            else:
                self._push(holder.path_of(key), key, item, follows_code=follows_code)

    def _members(self, path: str, kind: str, members: Namespace) -> None:
        """Take up the parameters, buffers or submodules of a module."""
        self.seen[id(members)] = members
        holder = Holder(path, kind, members, DICT, is_namespace=True)
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

    def _function(self, path: str, _: str, function: types.FunctionType, follows_code: bool) -> None:  # noqa: FBT001
        if not follows_code or is_library(function.__module__):
            return
        self.functions.append(function)
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
        if id(cell) in self.seen:
            return
        self.seen[id(cell)] = cell
        try:
            value = cell.cell_contents
        except ValueError:  # not assigned yet
            return
        self.holders.append(Holder(path, name, cell, Access(lambda c: [c.cell_contents], write_cell)))
        self._push(path, name, value, follows_code=True)

    def _names(
        self, path: str, data: Namespace, write: Callable[[str, object], None],
        space: Callable[[], Mapping[str, object]],
    ) -> None:  # fmt: skip
        """Take up some names of a namespace that is too large to be kept as a whole."""

        def read(_: object) -> Namespace:
            return {name: space().get(name, MISSING) for name in data}

        def put_back(_: object, content: Namespace) -> None:
            for name, value in content.items():
                if space().get(name, MISSING) is not value:
                    write(name, value)

        holder = Holder(path, path, None, Access(read, put_back), is_namespace=True)
        self.holders.append(holder)
        for name, value in data.items():
            self._push(holder.path_of(name), name, value, follows_code=False)


_VISITS: tuple[tuple[type | tuple[type, ...], Callable[[Reachable, str, str, Any, bool], None]], ...] = (
    (Tensor, Reachable._tensor),
    (tuple(kind for kind, _ in CONTAINERS), Reachable._container),
    ((tuple, frozenset), Reachable._items),
    (types.FunctionType, Reachable._function),
    (types.MethodType, Reachable._method),
    (functools.partial, Reachable._partial),
    (types.BuiltinMethodType, Reachable._builtin),
)
"""How a value of each class is followed; others are objects with attributes."""


def _function_in(value: object) -> types.FunctionType | None:
    """Return the function behind a method, property or static method."""
    for attribute in ("__func__", "fget", "func"):
        value = getattr(value, attribute, value)
    value = getattr(value, "__wrapped__", value)
    return value if isinstance(value, types.FunctionType) else None


def _is_data(name: str, value: object) -> bool:
    """Tell whether a global or an attribute of a class may be state; functions, classes and modules are not."""
    if name.startswith("__") or isinstance(value, (type, types.ModuleType, types.FunctionType, property)):
        return False
    if isinstance(value, (int, float, str, bool, type(None), Tensor, dict, list, set, deque)):
        return True
    return is_generator(value) or _draws(value) or (not callable(value) and not is_library(type(value).__module__))


def _draws(value: object) -> bool:
    """Tell whether a value is a method of a generator, other than the global ones, which are watched by themselves."""
    generator = getattr(value, "__self__", None)
    return isinstance(value, _METHODS) and is_generator(generator) and not is_global(generator)


@functools.lru_cache(maxsize=4096)
def _names_of(code: types.CodeType) -> frozenset[str]:
    """Return the names that a piece of code, and the functions defined in it, look up."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return frozenset(code.co_names).union(*map(_names_of, inner))


def scopes_naming(functions: Iterable[types.FunctionType], names: frozenset[str]) -> list[Namespace]:
    """Return the global namespaces of functions whose code names one of ``names``, each once."""
    found = {id(f.__globals__): f.__globals__ for f in functions if not names.isdisjoint(_names_of(f.__code__))}
    return list(found.values())


def is_library(module: str | None) -> bool:
    """Tell whether a module, given by its name, belongs to torch, NumPy, the standard library or this package."""
    return (module or "").partition(".")[0] in _LIBRARIES
