"""A lock for conversions: they run one at a time, and other threads' calls of the model being converted wait.

A conversion changes the modes of its model, takes the data out of its parameters and patches classes of torch. All of
that is undone at the end, but no second conversion and no other call may see it in the meantime.

Calls that another thread makes of the model or of one of its submodules through ``__call__`` start after the
conversion, and a conversion starts after the calls that are under way. Direct calls of ``forward`` and direct access
to parameters from other threads cannot be delayed.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from types import CodeType, FrameType

from torch import nn
from torch.amp.autocast_mode import autocast
from torch.autograd import Function

from torch_dag_core.errors import TraceError
from torch_dag_core.tracing.execution import any_meta
from torch_dag_core.tracing.functions import set_apply
from torch_dag_core.tracing.module_calls import begin_routing, end_routing, route
from torch_dag_core.tracing.recording import Live
from torch_dag_core.tracing.restoring import undoing
from torch_dag_core.tracing.settings import Settings

_PATIENCE_SECONDS = 120.0
_POLL_SECONDS = 0.001

_lock = threading.RLock()
_waiting: set[int] = set()
"""Threads that wait for a conversion before they call its model."""


@contextlib.contextmanager
def exclusive(model: nn.Module) -> Iterator[None]:
    """Hold the process-wide conversion lock and keep other threads out of ``model``.

    The lock is re-entrant, so that code which holds it for a model may convert parts of that model.

    Raises:
        TraceError: another thread was inside a call of the model for two minutes.
    """
    with _lock, _guarded(model):
        yield


@contextlib.contextmanager
def _guarded(model: nn.Module) -> Iterator[None]:
    owner, tree = threading.get_ident(), {id(module) for module in model.modules()}
    original = nn.Module.__call__
    apply = vars(Function).get("apply")
    entering, leaving = autocast.__enter__, autocast.__exit__
    codes = {getattr(original, "__code__", None), nn.Module._call_impl.__code__}  # others may have patched it too

    def call(self: nn.Module, *args: Live, **kwargs: Live) -> Live:
        # Operands without data come from the conversion: the model hands its work to threads of its own.
        is_foreign = threading.get_ident() != owner and not any_meta((args, kwargs))
        if is_foreign and id(self) in tree:
            wait_unless_under_way()
        # After waiting, another conversion may be under way, which the call is no part of either.
        is_routed = is_routing and not is_foreign
        result: Live = route(original, self, args, kwargs) if is_routed else original(self, *args, **kwargs)
        return result

    def wait_unless_under_way() -> None:
        """Let a call through that is part of one from before the conversion, because the conversion waits for it."""
        if not _is_inside(sys._getframe(2), tree, codes):
            _wait()

    settings = Settings()

    def undo() -> None:
        settings.put_back()  # an interrupt may keep a context manager of torch from doing it
        set_apply(apply)
        autocast.__enter__, autocast.__exit__ = entering, leaving  # type: ignore[method-assign]
        end_routing(tree)
        nn.Module.__call__ = original  # type: ignore[method-assign]

    codes.add(call.__code__)
    with undoing(undo):
        is_routing = begin_routing(tree)
        nn.Module.__call__ = call  # type: ignore[method-assign]
        _await_calls(tree, codes)
        yield


def _wait() -> None:
    """Return when no conversion runs."""
    thread = threading.get_ident()
    _waiting.add(thread)
    try:
        with _lock:
            _waiting.discard(thread)  # still under the lock: from here on a conversion sees the call as under way
    finally:
        _waiting.discard(thread)


def _await_calls(tree: set[int], codes: set[CodeType | None]) -> None:
    """Wait for the calls of modules of ``tree`` that other threads are inside of."""
    own, end = threading.get_ident(), time.monotonic() + _PATIENCE_SECONDS
    while any(
        thread != own and thread not in _waiting and _is_inside(frame, tree, codes)
        for thread, frame in sys._current_frames().items()
    ):
        if time.monotonic() > end:
            message = (
                f"another thread has been inside a call of the model for {_PATIENCE_SECONDS:.0f} seconds; "
                "convert the model while no other thread runs it"
            )
            raise TraceError(message)
        time.sleep(_POLL_SECONDS)


def _is_inside(frame: FrameType | None, tree: set[int], codes: set[CodeType | None]) -> bool:
    """Tell whether a frame, or one that called it, is a call of a module of ``tree``."""
    while frame is not None:
        if frame.f_code in codes and id(frame.f_locals.get("self")) in tree:
            return True
        frame = frame.f_back
    return False
