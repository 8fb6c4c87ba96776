"""Where calls of modules go while a model is traced.

To set an attribute of `nn.Module` makes Python drop what it cached about thousands of classes, which takes longer than
many a run. So a conversion patches ``nn.Module.__call__`` once, and every trace inside only changes where calls go.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TypeAlias

from torch import nn

from torch_dag_core.tracing.recording import Live

Original: TypeAlias = Callable[..., Live]
"""What ``nn.Module.__call__`` was before it was patched."""
Handler: TypeAlias = "Callable[[Original, nn.Module, tuple[Live, ...], dict[str, Live]], Live]"
"""Makes a call: given the original, the module, and the arguments by position and by name."""

_handlers: list[Handler] = []
"""Those of the traces under way, the innermost last."""
_patches: list[object] = []
"""The conversion whose patch hands calls to `route`, if one is under way."""


def route(original: Original, module: nn.Module, args: tuple[Live, ...], kwargs: dict[str, Live]) -> Live:
    """Make a call of a module as the innermost trace wants it."""
    return _handlers[-1](original, module, args, kwargs) if _handlers else original(module, *args, **kwargs)


def begin_routing(conversion: object) -> bool:
    """Tell whether the patch of this conversion has to call `route`; inside another one, the outer patch does."""
    if not _patches:
        _patches.append(conversion)
    return _patches[0] is conversion


def end_routing(conversion: object) -> None:
    """Undo `begin_routing`, and forget the handlers that an interrupt kept from being removed."""
    if _patches and _patches[0] is conversion:
        _handlers.clear()
        _patches.clear()


@contextlib.contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Hand every call of a module inside the block to the handler."""
    if _patches:
        depth = len(_handlers)
        try:
            _handlers.append(handler)
            yield
        finally:
            del _handlers[depth:]
        return
    original = nn.Module.__call__

    def call(module: nn.Module, *args: Live, **kwargs: Live) -> Live:
        return handler(original, module, args, kwargs)

    try:
        nn.Module.__call__ = call  # type: ignore[method-assign]
        yield
    finally:
        if nn.Module.__call__ is call:  # an interrupt may delay this until the conversion has undone it
            nn.Module.__call__ = original  # type: ignore[method-assign]
