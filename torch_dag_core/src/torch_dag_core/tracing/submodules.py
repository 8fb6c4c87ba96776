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


def has_own_mode(module: nn.Module) -> bool:
    """Tell whether `nn.Module.train` does something else for this module than to set ``training``."""
    cls = type(module)
    is_plain = all(getattr(cls, name) is method for name, method in _MODE_METHODS.items())
    return not is_plain or hasattr(cls, "training") or "train" in vars(module)
