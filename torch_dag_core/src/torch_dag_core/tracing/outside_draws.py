"""What a model asks of its surroundings: random generators of Python and NumPy, entropy, clocks, settings of torch.

A graph has none of these, so a model whose calls depend on one computes something else at its next call. Whether it
does is decided by evidence: the model runs again while the sources that it used give other numbers, once close to zero,
once close to one, and several times in between, so that a comparison such as ``random.random() < 0.1`` comes out both
ways.
"""

from __future__ import annotations

import builtins
import contextlib
import datetime as dt
import gc
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from threading import get_ident
from types import FrameType
from typing import Any

from torch_dag_core.tracing.following import Patches, StandsIn
from torch_dag_core.tracing.gradient_flags import GradientFlags
from torch_dag_core.tracing.places import Place
from torch_dag_core.tracing.reachable import is_library
from torch_dag_core.tracing.restoring import undoing
from torch_dag_core.tracing.sources import Source, generator_source, global_generators
from torch_dag_core.tracing.surroundings import (
    DATE,
    DATES,
    IDENTITIES,
    IDENTITY,
    Answers,
    Asked,
    Function,
    watched_functions,
)

_CLOCK_TRIALS = 4
_ENTROPY_TRIALS = 16
_IDENTITY_TRIALS = 8
_MODE_ADVICE = "so a graph would compute the same under torch.no_grad() and without it; decide by self.training"
_SETTING_ADVICE = "so a graph would compute the same under every setting of torch"
_SEED = Asked("entropy", lambda *_: None)


class OutsideDraws:
    """Watches the sources that every model can reach.

    Args:
        names: Global names outside of libraries that refer to watched functions, as (namespace, name).
        places: Other places of a model that hold them.
        identities: Global namespaces in which ``id`` and ``hash`` are watched.
        is_old: Tells whether an object was there before the model ran; its id is what it is.

    Attributes:
        flags: The answers to questions about gradients of tensors.
    """

    def __init__(
        self, names: Iterable[tuple[dict[str, Any], str]] = (), places: Iterable[Place] = (),
        identities: Iterable[dict[str, Any]] = (), is_old: Callable[[object], bool] = lambda _: True,
    ) -> None:  # fmt: skip
        self.flags = GradientFlags()
        self._names, self._places = tuple(names), tuple(places)
        self._identities, self._is_old = tuple(identities), is_old
        thread = get_ident()
        kinds = "entropy", "clock", "gradient mode", "inference mode", "setting", "seed", "identity"
        self._answers = {kind: Answers(thread) for kind in kinds}
        self._sources = [
            *(generator_source(f"numbers from {name}", generator) for name, generator in global_generators().items()),
            self._source("numbers from the system's entropy", "entropy", _ENTROPY_TRIALS),
            self._source("numbers from a clock", "clock", _CLOCK_TRIALS),
            self._source("torch.is_grad_enabled()", "gradient mode", 1, advice=_MODE_ADVICE, follows_gradients=False),
            self._source("torch.is_inference_mode_enabled()", "inference mode", 1, advice=_MODE_ADVICE),
            self._source(
                "a setting of torch", "setting", 1, advice=_SETTING_ADVICE,
                conditions=lambda: self._answers["setting"].conditions,
            ),
            self._source("numbers from torch.initial_seed()", "seed", 2),
            self._source("numbers from the identity of an object (id or hash)", "identity", _IDENTITY_TRIALS),
            *self.flags.sources(),
        ]  # fmt: skip
        self._before: list[object] = []

    def _source(self, name: str, kind: str, trials: int, **more: Any) -> Source:
        answers = self._answers[kind]
        return Source(name, answers.read, answers.steer, trials, **more)

    def mark(self) -> None:
        """Let `used` report what is used from this moment on."""
        self._before = [source.read() for source in self._sources]

    def used(self) -> list[Source]:
        """Return the sources that gave numbers since the mark."""
        pairs = zip(self._sources, self._before, strict=True)
        return [source for source, before in pairs if source.read() != before]

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Count, in this thread and inside the block, what is asked; give real answers again afterwards."""
        patches, seed = Patches(), random.Random.seed
        functions = list(watched_functions())
        replaced: list[tuple[Place, Any]] = []

        def undo() -> None:
            random.Random.seed = seed  # type: ignore[method-assign]
            patches.undo()
            for place, stand_in in replaced:
                if place.read() is stand_in:
                    place.write(place.value)
            self.flags.release()
            for answers in self._answers.values():
                answers.release()

        with undoing(undo):
            stand_ins: dict[int, Any] = {id(w.original): self._standing_in(w.original, w.asked) for w in functions}
            stand_ins[id(DATE)] = self._dates()
            for watched in functions:
                patches.put(watched.owner, {watched.name: stand_ins[id(watched.original)]})
            patches.put(vars(dt), {"datetime": stand_ins[id(DATE)]})
            of_system = vars(random), "_urandom"  # of SystemRandom, which secrets and NumPy's seeds draw from
            for scope, name in (of_system, *self._names):
                if id(scope.get(name)) in stand_ins:
                    patches.put(scope, {name: stand_ins[id(scope[name])]})
            for scope in self._identities:
                names = [name for name in IDENTITIES if name not in scope]
                patches.put(scope, {name: self._identity_of(getattr(builtins, name)) for name in names})
            for place in self._places:
                replaced.append((place, stand_ins[id(place.value)]))
                place.write(stand_ins[id(place.value)])
            random.Random.seed = self._seed_of(seed)  # type: ignore[method-assign]
            yield

    def _standing_in(self, original: Function, asked: Asked) -> Function:
        """Return ``original`` for other threads and libraries; the answers of its source for the model."""
        answers = self._answers[asked.source]

        def call(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            if get_ident() != answers.thread or not asked.is_asking(args):
                return result
            asker = sys._getframe(1)
            # Code of torch asks as well: torch.no_grad() does, in order to restore the mode.
            if asked.skips_libraries and is_library(asker.f_globals.get("__name__")):
                return result
            if _is_of_collector(asker):
                return result
            return answers.answer(asked, original, result, args, kwargs)

        return call

    def _identity_of(self, original: Function) -> Function:
        stand_in = self._standing_in(original, IDENTITY)

        def call(value: Any, /) -> int:
            is_by_place = original.__name__ == "id" or vars(object)["__hash__"] is type(value).__hash__
            ask = stand_in if is_by_place and not self._is_old(value) else original
            return int(ask(value))

        return call

    def _dates(self) -> Any:
        """Return the class that stands in for ``datetime.datetime``."""
        methods = {name: staticmethod(self._standing_in(getattr(DATE, name), asked)) for name, asked in DATES.items()}
        return _Date("datetime", (), {"builtin": DATE, **methods})

    def _seed_of(self, original: Callable[..., None]) -> Callable[..., None]:
        answers = self._answers["entropy"]

        def seed(generator: random.Random, a: Any = None, version: int = 2) -> None:
            original(generator, a, version)
            if a is None and get_ident() == answers.thread:
                answers.answer(_SEED, original, None, (), {})
                if answers.trial is not None:
                    original(generator, answers.trial)

        return seed


def _is_of_collector(frame: FrameType | None) -> bool:
    """Tell whether code runs because the garbage collector does, which tools measure; it may do so at any line."""
    codes = {getattr(callback, "__code__", None) for callback in gc.callbacks} - {None}
    while codes and frame is not None:
        if frame.f_code in codes:
            return True
        frame = frame.f_back
    return False


class _Date(StandsIn):
    def __call__(cls, *args: Any, **kwargs: Any) -> object:  # noqa: N805
        return cls.builtin(*args, **kwargs)


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
