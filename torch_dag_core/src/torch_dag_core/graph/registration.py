"""Modules registered in a root module under dotted names, with one folder module a level."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import nn


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
    """Drop the submodule ``name`` of ``root`` and the folders that this leaves empty."""
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
