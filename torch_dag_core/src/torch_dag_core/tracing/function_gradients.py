"""Whether the backward of a custom autograd function is the derivative of its forward."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd import Function

from torch_dag_core.tracing.recording import Live
from torch_dag_core.tracing.tensors import tensors_in

Apply: TypeAlias = Callable[..., Live]
Shapes: TypeAlias = tuple[tuple[int, ...], ...]
_TOLERANCE = 1e-6
_SPREAD = 3
"""Standard deviation of the points, which reaches both sides of the usual thresholds."""
_POINTS = 2_000
"""How many numbers are drawn for a check, at least, to meet what a backward does in a part of its domain."""
_MOST_DRAWS = 64
_KEPT_SIZE = 4
"""Sizes up to this stay as they are: they are often numbers of colours or of parts."""
_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)
_ERRORS = (RuntimeError, TypeError, AttributeError, NotImplementedError, ValueError, IndexError)


class CheckedFunctions:
    """Compares gradients of custom functions with those of their forwards, and remembers the verdicts.

    The comparison is made in double precision at random points. The same verdict holds for all calls of a class with
    equal arguments that are no tensors, and with tensors of the same types and of shapes of the same pattern: equal
    sizes stay equal, larger ones larger, and 1 stays 1. Small shapes of that pattern stand for all of them; shapes at
    which the small ones fail, or seem to have another gradient, are looked at as they are.
    """

    def __init__(self) -> None:
        self._verdicts: dict[Hashable, bool] = {}

    def differentiates_itself(self, cls: type[Function], apply: Apply, forward: Apply, args: tuple[Live, ...]) -> bool:
        """Tell whether a function has the gradients of its forward.

        Args:
            cls: The function.
            apply: Calls it.
            forward: Calls its forward alone, as ordinary differentiable code.
            args: Arguments of the call in question; of tensors, shapes and types matter alone.
        """
        tensors = [argument for argument in args if isinstance(argument, Tensor)]
        shapes: Shapes = tuple(tuple(tensor.shape) for tensor in tensors)
        return any(self._verdict(cls, apply, forward, args, tried) for tried in dict.fromkeys((_small(shapes), shapes)))

    def _verdict(
        self, cls: type[Function], apply: Apply, forward: Apply, args: tuple[Live, ...], shapes: Shapes
    ) -> bool:
        if not all(isinstance(argument, Tensor) or _is_plain(argument) for argument in args):
            return _agree(apply, forward, args, shapes)  # an object may be another one at the next call
        key = cls, shapes, tuple(map(_identity, args))
        if key not in self._verdicts:
            self._verdicts[key] = _agree(apply, forward, args, shapes)
        return self._verdicts[key]


def _is_plain(argument: Any) -> bool:
    if isinstance(argument, (tuple, list)):
        return all(map(_is_plain, argument))
    return isinstance(argument, _PLAIN)


def _identity(argument: Any) -> Hashable:
    """Return what tells arguments apart; 1, 1.0 and True are three."""
    return argument.dtype if isinstance(argument, Tensor) else (type(argument), repr(argument))


def _small(shapes: Shapes) -> Shapes:
    """Return the smallest shapes of the same pattern."""
    sizes = sorted({size for shape in shapes for size in shape if size > _KEPT_SIZE})
    small = {size: _KEPT_SIZE + 1 + place for place, size in enumerate(sizes)}
    return tuple(tuple(small.get(size, size) for size in shape) for shape in shapes)


def _agree(apply: Apply, forward: Apply, args: tuple[Live, ...], shapes: Shapes) -> bool:
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        for seed in range(_draws(args, shapes)):
            torch.default_generator.manual_seed(seed)
            points = _points(args, shapes)
            try:
                given, derived = (_gradients(run, points, seed) for run in (apply, forward))
            except _ERRORS:
                return False
            if len(given) != len(derived) or not all(map(_close, given, derived)):
                return False
    return True


def _draws(args: tuple[Live, ...], shapes: Shapes) -> int:
    tensors = (argument for argument in args if isinstance(argument, Tensor))
    counts = [
        torch.Size(shape).numel()
        for tensor, shape in zip(tensors, shapes, strict=True)
        if tensor.is_floating_point()
    ]  # fmt: skip
    return min(max(1, -(-_POINTS // max(min(counts, default=_POINTS), 1))), _MOST_DRAWS)


def _points(args: tuple[Live, ...], shapes: Shapes) -> list[Live]:
    """Return the arguments with random numbers in place of floating-point tensors, and zeros in place of others."""
    left = iter(shapes)
    return [_point(argument, next(left)) if isinstance(argument, Tensor) else argument for argument in args]


def _point(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    if not tensor.is_floating_point():
        return torch.zeros(shape, dtype=tensor.dtype)
    return torch.randn(shape, dtype=torch.float64).mul_(_SPREAD)


def _gradients(run: Apply, points: list[Live], seed: int) -> list[Tensor | None]:
    fresh = [p.clone().requires_grad_() if isinstance(p, Tensor) and p.is_floating_point() else p for p in points]
    torch.default_generator.manual_seed(seed)
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
