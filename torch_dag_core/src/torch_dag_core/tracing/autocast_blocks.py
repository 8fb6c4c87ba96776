"""The blocks of autocast that a traced model is in, as far as questions about autocast need to know."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch


class Block(NamedTuple):
    """One block.

    Attributes:
        device: The type of device.
        enabled: Whether it switches autocast on.
        dtype: The type that it casts to.
        is_default: Whether that is the type which the state of the model's caller names.
    """

    device: str
    enabled: bool
    dtype: torch.dtype
    is_default: bool


class _Running(threading.local):
    innermost: Callable[[str], Block | None] | None = None


_running = _Running()


@contextlib.contextmanager
def asked_about(innermost: Callable[[str], Block | None]) -> Iterator[None]:
    """Let `is_decided` ask for the innermost block of the trace that runs in this thread."""
    outer, _running.innermost = _running.innermost, innermost
    try:
        yield
    finally:
        _running.innermost = outer


def is_decided(device: str, *, dtype: bool = False) -> bool:
    """Tell whether the traced model itself decides on the state of autocast, or on its type, rather than its caller."""
    block = None if _running.innermost is None else _running.innermost(device)
    return block is not None and not (dtype and block.is_default)
