"""Random states of Python, NumPy and torch, and settings of torch, read once and put back later."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any

import torch


class Settings:
    """Random states and settings at the moment of construction."""

    def __init__(self) -> None:
        self._random = random.getstate()
        self._numpy: Any = sys.modules.get("numpy.random")
        self._numpy_state = None if self._numpy is None else self._numpy.get_state()
        self._torch = torch.get_rng_state()
        self._values = [(write, read()) for read, write in _SETTINGS]

    def start_run(self) -> None:
        """Put the random states of Python and NumPy back for a run, and seed torch's generator with 0."""
        self._put_back_random_states()
        torch.default_generator.manual_seed(0)

    def put_back(self) -> None:
        """Restore everything."""
        self._put_back_random_states()
        torch.set_rng_state(self._torch)
        for write, value in self._values:
            write(value)

    def _put_back_random_states(self) -> None:
        random.setstate(self._random)
        if self._numpy is not None:
            self._numpy.set_state(self._numpy_state)


def _autocast() -> list[tuple[bool, torch.dtype]]:
    return [(torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)) for device in _DEVICES]


def _set_autocast(value: list[tuple[bool, torch.dtype]]) -> None:
    for device, (enabled, dtype) in zip(_DEVICES, value, strict=True):
        torch.set_autocast_enabled(device, enabled)
        torch.set_autocast_dtype(device, dtype)


def _compiler() -> Any:
    return sys.modules.get("torch._dynamo.eval_frame")


def _stance() -> object:
    """Return what the compiler does with compiled functions; None before it is imported."""
    return None if _compiler() is None else _compiler()._stance


def _set_stance(value: object) -> None:
    if _compiler() is not None and _compiler()._stance is not value:
        _compiler()._set_stance(value or _compiler().DynamoStance())


_DEVICES = ("cpu", "cuda")
_SETTINGS: tuple[tuple[Callable[[], object], Callable[[Any], None]], ...] = (
    (torch.is_grad_enabled, torch._C._set_grad_enabled),
    (torch.get_default_dtype, torch.set_default_dtype),
    (_autocast, _set_autocast),
    (torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
    (_stance, _set_stance),
)
"""How each setting is read and written."""
