"""Modules registered in a root module under dotted names: one folder module for each level of a name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, KeysView

from torch import nn

from torch_dag_core.graph.vertex import InnerVertex


class Scope(nn.Module):
    """A folder of modules: one dotted level of vertex names."""


def register(root: nn.Module, name: str, module: nn.Module) -> None:
    """Make ``module`` the submodule ``name`` of ``root``; missing folders are made."""
    *path, last = name.split(".")
    for part in path:
        if part not in root._modules:
            scope = Scope()
            scope.training = root.training
            root.add_module(part, scope)
        root = root._modules[part]  # type: ignore[assignment]
    root.add_module(last, module)


def unregister(root: nn.Module, name: str) -> None:
    """Remove the submodule ``name`` of ``root`` and the folders that this leaves empty."""
    *path, last = name.split(".")
    chain = [root]
    for part in path:
        chain.append(chain[-1]._modules[part])  # type: ignore[arg-type]
    del chain[-1]._modules[last]
    for parent, part, scope in zip(reversed(chain[:-1]), reversed(path), reversed(chain[1:]), strict=True):
        if scope._modules:
            break
        del parent._modules[part]


def registrations(root: nn.Module) -> dict[str, nn.Module]:
    """Return every module registered in ``root`` or its folders, by dotted name. O(n)."""
    found: dict[str, nn.Module] = {}
    folders = [("", root)]
    while folders:
        prefix, folder = folders.pop()
        for part, module in folder._modules.items():
            if isinstance(module, Scope):
                folders.append((f"{prefix}{part}.", module))
            elif module is not None:
                found[prefix + part] = module
    return found


def attribute_in_the_way(root: nn.Module, name: str) -> bool:
    """Tell whether a level of ``name`` is an attribute that every module has, or that ``root`` has."""
    first, *rest = name.split(".")
    return _is_attribute(root, first) or any(hasattr(Scope, part) or part in _SCOPE_STATE for part in rest)


def _is_attribute(module: nn.Module, name: str) -> bool:
    return name not in module._modules and hasattr(module, name)


_SCOPE_STATE = frozenset(vars(Scope()))


def prefixes(name: str) -> Iterator[str]:
    """Iterate over the folders that ``name`` lies in, outermost first."""
    position = name.find(".")
    while position >= 0:
        yield name[:position]
        position = name.find(".", position + 1)


def open_path(name: str, is_folder: Callable[[str], bool]) -> str:
    """Return ``name`` with each dot after something that cannot be a folder turned into an underscore."""
    *folders, last = name.split(".")
    path = ""
    for part in folders:
        path += part
        path += "." if is_folder(path) else "_"
    return path + last


def first_free(name: str, is_free: Callable[[str], bool]) -> str:
    """Return ``name`` or ``name_1``, ``name_2``, ...: the first that is free if they are taken in order. O(log n)."""
    if is_free(name):
        return name
    taken, free = 0, 1
    while not is_free(f"{name}_{free}"):
        taken, free = free, 2 * free
    while free - taken > 1:
        middle = (taken + free) // 2
        taken, free = (taken, middle) if is_free(f"{name}_{middle}") else (middle, free)
    return f"{name}_{free}"


class Registrations:
    """The vertices that call each module; the module is registered in ``root`` under the name of the first."""

    def __init__(self, root: nn.Module) -> None:
        self._root = root
        self._owners: dict[nn.Module, dict[InnerVertex, None]] = {}

    def __len__(self) -> int:
        """Return the number of vertices."""
        return sum(map(len, self._owners.values()))

    @property
    def modules(self) -> KeysView[nn.Module]:
        """The modules, each once."""
        return self._owners.keys()

    def owners(self, module: nn.Module) -> Collection[InnerVertex]:
        """Return the vertices that call a module, the one under whose name it is registered first."""
        return self._owners.get(module, {}).keys()

    def first_owner(self, module: nn.Module) -> InnerVertex:
        """Return the vertex under whose name a module is registered. O(1)."""
        return next(iter(self._owners[module]))

    def add(self, vertex: InnerVertex) -> None:
        """Record that a vertex calls its module, and register the module if no other vertex calls it."""
        self.adopt(vertex)
        if len(self._owners[vertex.module]) == 1:
            register(self._root, vertex.name, vertex.module)

    def remove(self, vertex: InnerVertex) -> None:
        """Forget a vertex; a module that others call is registered under the name of the next one."""
        owners = self._owners[vertex.module]
        first = next(iter(owners))
        del owners[vertex]
        if first is vertex:
            unregister(self._root, vertex.name)
            heir = next(iter(owners), None)
            if heir is not None:
                register(self._root, heir.name, heir.module)
        if not owners:
            del self._owners[vertex.module]

    def put_first(self, vertex: InnerVertex) -> None:
        """Register the module of a vertex under the name of this vertex."""
        first = self.first_owner(vertex.module)
        if first is not vertex:
            unregister(self._root, first.name)
            self._move_to_front(vertex)
            register(self._root, vertex.name, vertex.module)

    def register_anew(self, first_owners: Iterable[InnerVertex]) -> None:
        """Register all modules again, in the order of these vertices and under their names: one for each module."""
        self._root._modules.clear()
        for vertex in first_owners:
            self._move_to_front(vertex)
            register(self._root, vertex.name, vertex.module)

    def adopt(self, vertex: InnerVertex) -> None:
        """Record a vertex without registering its module."""
        self._owners.setdefault(vertex.module, {})[vertex] = None

    def adopt_names(self, vertices: Iterable[InnerVertex]) -> None:
        """Put first, among the adopted vertices that share a module, the one under whose name it is registered."""
        names = registrations(self._root)
        for vertex in vertices:
            if names.get(vertex.name) is vertex.module and len(self._owners[vertex.module]) > 1:
                self._move_to_front(vertex)

    def _move_to_front(self, vertex: InnerVertex) -> None:
        self._owners[vertex.module] = {vertex: None, **self._owners[vertex.module]}
