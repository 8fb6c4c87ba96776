"""Functions that are recorded as the calls that their Python code makes: some of torch's own, and scripted ones."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import FunctionType
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.jit._state import _try_get_jit_cached_function

if TYPE_CHECKING:
    from torch_dag_core.tracing.recorder import Recorder

COMPOSITE = frozenset({"multi_head_attention_forward", "triplet_margin_with_distance_loss"})
"""Functions of `torch.nn.functional` that consist of calls of others."""


def is_written_in_python(function: Callable[..., Any]) -> bool:
    """Tell whether `opened` makes the steps of a function visible."""
    return isinstance(function, FunctionType) and function.__module__ == torch.nn.functional.__name__


@lru_cache(maxsize=16)
def opened(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return torch's function without its first step, which hands the whole call to whoever overrides it."""
    original = cast("FunctionType", function)
    checks = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    names = {**original.__globals__, **dict.fromkeys(checks, _never)}
    copy = FunctionType(original.__code__, names, original.__name__, original.__defaults__, original.__closure__)
    copy.__kwdefaults__ = original.__kwdefaults__
    return copy


def _never(*_: object) -> bool:
    return False


@contextlib.contextmanager
def scripted_as_python(recorder: Recorder) -> Iterator[None]:
    """Run the Python functions that scripted ones were made of; a class-level patch, undone on exit."""
    scripted: Any = torch._C.ScriptFunction
    original, thread = vars(scripted)["__call__"], threading.get_ident()

    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        if recorder.pause or threading.get_ident() != thread:
            return original.__get__(function)(*args, **kwargs)
        python = _python_of(function)
        if python is None:
            name = f"the TorchScript function {function.name!r}"
            recorder.location.fail(f"{name} is a call that the trace cannot see: call a Python function instead")
        return python(*args, **kwargs)

    scripted.__call__ = call
    try:
        yield
    finally:
        scripted.__call__ = original


def _python_of(function: Any) -> Callable[..., Any] | None:
    """Return what a function was scripted from; None for one that was traced, which may have lost branches."""
    python = getattr(function, "_torchdynamo_inline", None)
    cached: Any = None if python is None else _try_get_jit_cached_function(python)  # type: ignore[no-untyped-call]
    return python if cached is not None and cached.qualified_name == function.qualified_name else None
