"""The modules of a model, listed by one loop, which is faster than the nested generators of `named_modules`."""

from __future__ import annotations

from torch import nn

_MODE_METHODS = {name: getattr(nn.Module, name) for name in ("train", "children", "named_children", "__setattr__")}
"""What `nn.Module.train` is made of."""


def named_submodules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """List what ``model.named_modules()`` yields, in the same order: every module once, with its first path."""
    found: list[tuple[str, nn.Module]] = []
    seen: set[int] = set()
    stack = [("", model)]
    while stack:
        path, module = stack.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        found.append((path, module))
        prefix = f"{path}." if path else ""
        stack += [(prefix + name, child) for name, child in reversed(module._modules.items()) if child is not None]
    return found


def have_own_modes(modules: list[nn.Module]) -> bool:
    """Tell whether `nn.Module.train` does something else for any of the modules than to set ``training``."""
    return any(map(_has_own_mode, set(map(type, modules)))) or any("train" in vars(module) for module in modules)


def _has_own_mode(cls: type[nn.Module]) -> bool:
    return hasattr(cls, "training") or any(getattr(cls, name) is not own for name, own in _MODE_METHODS.items())
