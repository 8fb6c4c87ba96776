"""What a model asks of its surroundings: random generators of Python and NumPy, entropy, clocks, the gradient mode.

A graph has none of these, so a model whose calls depend on one computes something else at its next call. Whether it
does is decided by evidence: the model runs again while the sources that it used give other numbers, once close to zero,
once close to one, and several times in between, so that a comparison such as ``random.random() < 0.1`` comes out both
ways.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from threading import get_ident
from typing import Any

import torch

from torch_dag_core.tracing.reachable import is_library
from torch_dag_core.tracing.sources import Source, generator_source, global_generators, seeded

_CLOCKS = ("time", "time_ns", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "process_time")
_CLOCK_TRIALS = 2
_ENTROPY_TRIALS = 16
_SHIFT_SECONDS = 86_399.25
_MODE_ADVICE = "so a graph would compute the same under torch.no_grad() and without it; decide by self.training"


class OutsideDraws:
    """Watches the sources that every model can reach."""

    def __init__(self) -> None:
        self._clock, self._entropy, self._mode = _Counted(), _Counted(), _Counted()
        self._sources = [
            *(generator_source(f"numbers from {name}", generator) for name, generator in global_generators().items()),
            Source("numbers from the system's entropy", self._entropy.read, self._entropy.steer, _ENTROPY_TRIALS),
            Source("numbers from a clock", self._clock.read, self._clock.steer, _CLOCK_TRIALS),
            Source("torch.is_grad_enabled()", self._mode.read, self._mode.steer, 1, _MODE_ADVICE),
        ]  # fmt: skip
        self._before: list[object] = []

    def mark(self) -> None:
        """Let `used` report what is used from this moment on."""
        self._before = [source.read() for source in self._sources]

    def used(self) -> list[Source]:
        """Return the sources that gave numbers since the mark."""
        pairs = zip(self._sources, self._before, strict=True)
        return [source for source, before in pairs if source.read() != before]

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Count, in this thread and inside the block, requests for entropy and for the time."""
        kept: list[tuple[Any, str, object]] = []

        def put(owner: Any, name: str, stand_in: Callable[[Any], Callable[..., Any]]) -> None:
            original = getattr(owner, name)
            kept.append((owner, name, original))
            setattr(owner, name, stand_in(original))

        try:
            put(os, "urandom", self._bytes_of)
            put(random, "_urandom", self._bytes_of)  # of SystemRandom, which secrets and NumPy's seeds draw from
            put(random.Random, "seed", self._seed_of)
            for name in _CLOCKS:
                put(time, name, self._time_of)
            put(torch, "is_grad_enabled", self._mode_of)
            yield
        finally:
            for owner, name, original in reversed(kept):
                setattr(owner, name, original)

    def _bytes_of(self, original: Callable[[int], bytes]) -> Callable[[int], bytes]:
        return self._entropy.standing_in(original, lambda _, trial, count: seeded(trial).randbytes(count))

    def _seed_of(self, original: Callable[..., None]) -> Callable[..., None]:
        unseeded = self._entropy.standing_in(original, lambda _, trial, generator, *__: original(generator, trial))

        def seed(generator: random.Random, a: Any = None, version: int = 2) -> None:
            (original if a is not None else unseeded)(generator, a, version)

        return seed

    def _mode_of(self, original: Callable[[], bool]) -> Callable[[], bool]:
        asked_by_model = self._mode.standing_in(original, lambda enabled, _: not enabled)

        def is_grad_enabled() -> bool:
            # torch.no_grad() asks as well, in order to restore the mode.
            is_own = is_library(sys._getframe(1).f_globals.get("__name__"))
            return original() if is_own else bool(asked_by_model())

        return is_grad_enabled

    def _time_of(self, original: Callable[[], float]) -> Callable[[], float]:
        return self._clock.standing_in(original, lambda now, trial: now + type(now)((trial + 1) * _SHIFT_SECONDS))


class _Counted:
    """Counts the calls of functions, and gives other results in their place once it is steered."""

    def __init__(self) -> None:
        self._calls, self._thread = 0, get_ident()
        self._trial: int | None = None

    def read(self) -> int:
        return self._calls

    def steer(self, trial: int) -> None:
        self._trial = trial

    def standing_in(self, original: Callable[..., Any], other: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``original`` counted; once steered, ``other(original's result, trial, *arguments)``."""

        def call(*args: Any) -> Any:
            result = original(*args)
            if get_ident() != self._thread:
                return result
            self._calls += 1
            return result if self._trial is None else other(result, self._trial, *args)

        return call


@dataclass
class LineOfUse:
    """Finds the line of a running model at which sources are used first; a trace function of `sys.settrace`."""

    sources: Iterable[Source]
    found: str | None = None
    _line: str = "unknown"

    def __post_init__(self) -> None:
        self._before = self._state()

    def _state(self) -> list[object]:
        return [source.read() for source in self.sources]

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Look at every line that runs inside the block."""
        earlier = sys.gettrace()
        self._before = self._state()
        sys.settrace(self._on_event)
        try:
            yield
        finally:
            sys.settrace(earlier)

    def _on_event(self, frame: Any, event: str, _: object) -> Any:
        if self.found is not None or is_library(frame.f_globals.get("__name__")):
            return None
        if self._state() != self._before:
            self.found = self._line
            return None
        place = frame.f_back if event == "return" else frame
        while place is not None and is_library(place.f_globals.get("__name__")):
            place = place.f_back
        if place is not None:
            self._line = f"{place.f_code.co_filename}:{place.f_lineno}"
        return self._on_event
