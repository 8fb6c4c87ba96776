"""Switches for the calls that a trace makes itself: one stops recording, the other autograd."""

from __future__ import annotations

import torch
from torch import is_grad_enabled


class Pause:
    """True inside its ``with`` blocks, which may be nested: calls there run, but are not recorded."""

    def __init__(self) -> None:
        self._depth = 0

    def __bool__(self) -> bool:
        return self._depth > 0

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1

    def stay(self) -> None:
        """Stop recording for good."""
        self._depth += 1


class WithoutGradient:
    """Turns autograd off inside one ``with`` block.

    Unlike `torch.no_grad` it does not call `torch.is_grad_enabled`, which is replaced during a run in order to count
    the model's calls of it.
    """

    _enabled = False

    def __enter__(self) -> None:
        self._before = is_grad_enabled()
        torch._C._set_grad_enabled(self._enabled)

    def __exit__(self, *_: object) -> None:
        torch._C._set_grad_enabled(self._before)


class WithGradient(WithoutGradient):
    """Turns autograd on inside one ``with`` block."""

    _enabled = True
