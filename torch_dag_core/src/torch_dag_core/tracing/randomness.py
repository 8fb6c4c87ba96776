"""Random numbers that a model draws: a graph draws from torch's default generator alone, call after call."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from torch_dag_core.tracing.location import Location
from torch_dag_core.tracing.pause import Pause
from torch_dag_core.tracing.recording import Live

_RESTARTS = frozenset({"manual_seed", "seed", "set_state", "graphsafe_set_state", "set_offset"})


class Randomness:
    """Refuses draws and changes of random state that a graph would not repeat."""

    def __init__(self, location: Location, pause: Pause) -> None:
        self._location, self._pause = location, pause
        self._state = _torch_state()

    def own_generator_removed(self, name: str, args: tuple[Live, ...], kwargs: dict[str, Live]) -> dict[str, Live]:
        """Return the keywords without ``generator``, which may be torch's default generator or None.

        Raises:
            TraceError: the call draws from another generator.
        """
        given = [value for value in (*args, kwargs.get("generator")) if isinstance(value, torch.Generator)]
        if any(generator is not torch.default_generator for generator in given):
            self._location.fail(f"{name.strip('_')} draws from a generator of its own (generator=), which no graph has")
        return {key: value for key, value in kwargs.items() if key != "generator"}

    def check(self) -> None:
        """Raise the `TraceError` for a state that is not the one after the last recorded call."""
        if not torch.equal(_torch_state(), self._state):
            self._refuse_restart("changes the state of torch's random numbers")

    def note(self) -> None:
        """Take the present state as the one after a recorded call."""
        self._state = _torch_state()

    def refuse_restart(self, how: str) -> None:
        """Raise the `TraceError` for ``how``, the name of a method of the default generator, unless paused."""
        if not self._pause:
            self._refuse_restart(f"seeds torch's random numbers or sets their state ({how})")

    def _refuse_restart(self, what: str) -> None:
        self._location.fail(f"the model {what} in forward, which a graph cannot repeat: do it outside of the model")


class _Guarded:
    """The default generator as `torch.random` sees it during a trace: the tracing thread may only read its state."""

    def __init__(self, generator: torch.Generator, refuse: Callable[[str], None]) -> None:
        self._generator, self._refuse, self._thread = generator, refuse, threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        if name in _RESTARTS and threading.get_ident() == self._thread:
            self._refuse(name)
        return getattr(self._generator, name)


@contextlib.contextmanager
def guarded_seeds(randomness: Randomness) -> Iterator[None]:
    """Refuse ``torch.manual_seed``, ``fork_rng`` and their siblings inside the block, however they were imported."""
    module: Any = torch.random
    generator = module.default_generator
    module.default_generator = _Guarded(generator, randomness.refuse_restart)
    try:
        yield
    finally:
        module.default_generator = generator


def _torch_state() -> Tensor:
    return torch.default_generator.get_state()
