"""Custom autograd functions: traced through where their backward is the derivative of their forward."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias, cast

import torch
from torch import Tensor
from torch.autograd import Function

from torch_dag_core.tracing.recording import Live
from torch_dag_core.tracing.tensors import tensors_in

if TYPE_CHECKING:
    from torch_dag_core.tracing.recorder import Recorder

Apply: TypeAlias = Callable[..., Live]
_TOLERANCE = 1e-6


@contextlib.contextmanager
def recorded_functions(recorder: Recorder) -> Iterator[None]:
    """Route this thread's calls of ``Function.apply`` through the recorder; a class-level patch, undone on exit."""
    owner = threading.get_ident()
    own = vars(Function).get("apply")
    inherited = own or next(vars(base)["apply"] for base in Function.__mro__ if "apply" in vars(base))

    def apply(cls: type[Function], /, *args: Live, **kwargs: Live) -> Live:
        bound: Apply = inherited.__get__(None, cls)
        if recorder.pause or threading.get_ident() != owner:
            return bound(*args, **kwargs)
        if cls.__module__ == "torch.utils.checkpoint":
            return _checkpointed(recorder, cls, bound, args)
        with recorder.pause:
            keeps = _differentiates_itself(cls, bound, args)
        if not keeps:
            what = f"the custom autograd function {cls.__name__} has a gradient of its own"
            recorder.location.fail(f"{what}, which a graph cannot keep")
        return _forward(cls, args)

    patched = classmethod(apply)
    try:
        Function.apply = patched
        yield
    finally:
        if vars(Function).get("apply") is patched:  # an interrupt may delay this until the conversion has undone it
            set_apply(own)


def set_apply(own: object) -> None:
    """Set what ``Function.apply`` is; None where the class inherits it."""
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


def _forward(cls: type[Function], args: tuple[Live, ...]) -> Live:
    separate = cls.setup_context is not Function.setup_context
    result: Live = cls.forward(*args) if separate else cls.forward(_Context(args), *args)
    return result


def _differentiates_itself(cls: type[Function], apply: Apply, args: tuple[Live, ...]) -> bool:
    """Compare the function's gradients with those of its forward, at random points of the given shapes."""
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        points = [_like(argument) for argument in args]
        try:
            given, derived = _gradients(apply, points), _gradients(lambda *a: _forward(cls, a), points)
        except (RuntimeError, TypeError, AttributeError, NotImplementedError):
            return False
    return len(given) == len(derived) and all(map(_close, given, derived))


def _like(argument: Live) -> Live:
    if not isinstance(argument, Tensor):
        return argument
    if not argument.is_floating_point():
        return torch.zeros(argument.shape, dtype=argument.dtype)
    return torch.randn(argument.shape, dtype=torch.float64).mul_(3)


def _gradients(run: Apply, points: list[Live]) -> list[Tensor | None]:
    fresh = [p.clone().requires_grad_() if isinstance(p, Tensor) and p.is_floating_point() else p for p in points]
    torch.default_generator.manual_seed(0)
    results = [tensor for tensor in tensors_in(run(*fresh)) if tensor.requires_grad]
    if not results:
        return []
    wanted = [p for p in fresh if isinstance(p, Tensor) and p.requires_grad]
    total = sum((result * torch.randn_like(result)).sum() for result in results)
    return list(torch.autograd.grad(total, wanted, allow_unused=True))  # type: ignore[arg-type]


def _close(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    scale = max(float(first.abs().max()), 1.0) if first.numel() else 1.0
    return bool((first - second).abs().max() <= _TOLERANCE * scale) if first.numel() else True
