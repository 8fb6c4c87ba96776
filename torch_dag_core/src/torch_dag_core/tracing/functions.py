"""Custom autograd functions: traced through where their backward is the derivative of their forward.

The calls of the forward are recorded at each call of the function, so that values are those of the model in any case.
Whether gradients are is looked at once for each class, with each set of static arguments and each pattern of shapes.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionMeta

from torch_dag_core.tracing.function_gradients import CheckedFunctions
from torch_dag_core.tracing.recording import Live
from torch_dag_core.tracing.settled import plain, settled

if TYPE_CHECKING:
    from torch_dag_core.tracing.recorder import Recorder

Apply: TypeAlias = Callable[..., Live]
_CHECKPOINTS = "torch.utils.checkpoint"
_READ = ("setup_context", "forward")
"""Attributes of a function's class that torch reads for a call, in this order."""


@contextlib.contextmanager
def recorded_functions(recorder: Recorder, checked: CheckedFunctions) -> Iterator[None]:
    """Route this thread's calls of custom functions through the recorder; class-level patches, undone on exit."""
    calls = _Calls(recorder, checked)
    own, meta = vars(Function).get("apply"), vars(FunctionMeta)
    outer = {name: meta[name] for name in _READ if name in meta}
    patched = classmethod(calls.apply)
    try:
        Function.apply = patched
        for name in _READ:
            setattr(FunctionMeta, name, property(getattr(calls, name), partial(_set_attribute, name)))
        yield
    finally:
        if vars(Function).get("apply") is patched:  # an interrupt may delay this until the conversion has undone it
            set_apply(own)
            for name, patch in outer.items():  # those of a conversion that this one is a part of
                setattr(FunctionMeta, name, patch)


class _Calls:
    """Takes the calls of custom functions: those of ``apply``, and those of an ``apply`` that was bound before.

    The latter, as in ``swish = Swish.apply``, run code of torch that reads the attribute ``setup_context`` of the class
    in the gradient mode of its caller, then ``forward`` without gradients, and calls what it read.
    """

    def __init__(self, recorder: Recorder, checked: CheckedFunctions) -> None:
        self._recorder, self._checked, self._thread = recorder, checked, threading.get_ident()
        self._inherited = vars(Function).get("apply") or next(
            vars(base)["apply"] for base in Function.__mro__ if "apply" in vars(base)
        )
        self._started: type[Function] | None = None

    def apply(self, cls: type[Function], /, *args: Live, **kwargs: Live) -> Live:
        """Make a call of ``cls.apply``."""
        bound = self._bound(cls)
        if self._is_elsewhere():
            return bound(*args, **kwargs)
        if cls.__module__ == _CHECKPOINTS:
            return _checkpointed(self._recorder, cls, bound, args)
        self._check(cls, args)
        return _forward(cls, *args)

    def setup_context(self, cls: type[Function]) -> object:
        """Return the attribute of the class, and note the class if a call with gradients may follow."""
        self._started = cls if torch.is_grad_enabled() and not self._is_elsewhere() else None
        return _attribute(cls, "setup_context")

    def forward(self, cls: type[Function]) -> object:
        """Return the attribute of the class, or what stands in for it inside of an ``apply`` that was bound before.

        Where the caller has no gradients either, the forward itself is what a graph records.
        """
        if torch.is_grad_enabled() or self._is_elsewhere():
            return _attribute(cls, "forward")
        started, self._started = self._started, None
        is_applied = started is cls and cls.__module__ != _CHECKPOINTS
        return partial(self._within_apply, cls) if is_applied else _attribute(cls, "forward")

    def _within_apply(self, cls: type[Function], *args: Live) -> Live:
        operands = args if _is_separate(cls) else args[1:]
        with torch.enable_grad():
            self._check(cls, operands)
            return _forward(cls, *operands)

    def _check(self, cls: type[Function], args: tuple[Live, ...]) -> None:
        """Refuse a function whose gradient is not that of its forward."""
        if self._recorder.autocasts:
            what = f"the custom autograd function {cls.__name__} is called inside of a block that switches autocast on"
            self._recorder.location.fail(f"{what}, under which a graph cannot check its gradient")
        with self._recorder.pause:
            forward = partial(_forward, cls)
            keeps = self._checked.differentiates_itself(cls, self._bound(cls), forward, plain(settled(args)))
        if not keeps:
            what = f"the custom autograd function {cls.__name__} has a gradient of its own"
            self._recorder.location.fail(f"{what}, which a graph cannot keep")

    def _bound(self, cls: type[Function]) -> Apply:
        bound: Apply = self._inherited.__get__(None, cls)
        return bound

    def _is_elsewhere(self) -> bool:
        return bool(self._recorder.pause) or threading.get_ident() != self._thread


def _attribute(cls: type[Function], name: str) -> Any:
    """Return a method of a class as it is without the patches."""
    found = next(vars(base)[name] for base in cls.__mro__ if name in vars(base))
    return found.__get__(None, cls) if hasattr(found, "__get__") else found


def _set_attribute(name: str, cls: type[Function], value: object) -> None:
    """Set an attribute of a class as if its metaclass were not patched."""
    patch = vars(FunctionMeta)[name]
    delattr(FunctionMeta, name)
    try:
        setattr(cls, name, value)
    finally:
        setattr(FunctionMeta, name, patch)


def _is_separate(cls: type[Function]) -> bool:
    """Tell whether the forward of a function takes no context."""
    separate: bool = _attribute(cls, "setup_context") is not _attribute(Function, "setup_context")
    return separate


def set_apply(own: object) -> None:
    """Set what ``Function.apply`` is, None where the class inherits it, and undo the other patches."""
    for name in _READ:
        if name in vars(FunctionMeta):
            delattr(FunctionMeta, name)
    if own is not None:
        Function.apply = own
    elif "apply" in vars(Function):
        del Function.apply


def _checkpointed(recorder: Recorder, cls: type[Function], apply: Apply, args: tuple[Live, ...]) -> Live:
    """Run what one of torch's functions for checkpointing wraps: the block, or else only what its backward needs."""
    if cls.__name__ == "CheckpointFunction":
        function, _, *operands = args
        return cast("Apply", function)(*operands)
    with recorder.pause:
        return apply(*args)


class _Context:
    """Takes what a forward stores for its backward."""

    def __init__(self, args: tuple[Live, ...]) -> None:
        self.needs_input_grad = tuple(isinstance(argument, Tensor) for argument in args)

    def _ignore(self, *_: object, **__: object) -> None:
        pass

    save_for_backward = save_for_forward = mark_dirty = mark_non_differentiable = set_materialize_grads = _ignore


def _forward(cls: type[Function], *args: Live) -> Live:
    forward: Apply = _attribute(cls, "forward")
    return forward(*args) if _is_separate(cls) else forward(_Context(args), *args)
