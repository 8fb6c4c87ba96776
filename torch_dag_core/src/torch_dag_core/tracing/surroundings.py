"""The functions by which a model asks for what is no part of it: clocks, entropy, settings of its caller."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Hashable, Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

import torch

from torch_dag_core.graph.caller_state import DEVICES, SETTINGS, setting_is
from torch_dag_core.tracing.autocast_blocks import is_decided
from torch_dag_core.tracing.sources import seeded

Function: TypeAlias = Callable[..., Any]
Condition: TypeAlias = tuple[Any, ...]
_now, _there, _formatted, _as_time = time.time, time.localtime, time.strftime, time.asctime
"""Kept here, because the names in ``time`` are replaced while a model is traced."""

SHIFT_SECONDS = 401 * 86_400 + 7 * 3_600 + 17 * 60 + 13.25
"""What clocks differ by from trial to trial: another second, minute, hour, weekday, month and year.

Four trials reach both halves of the day and of the week.
"""
_NANO = 10**9
_ODD, _RANGE = 0x1E3779B97F4A7C15, 2**62
"""An odd factor maps the numbers below a power of two to one another."""
_WITHOUT_TIME = {"localtime": 0, "gmtime": 0, "ctime": 0, "strftime": 1, "asctime": 0}
"""Functions that tell the present time where they are given so few arguments."""


class Asked(NamedTuple):
    """A function that asks for something outside of the model.

    Attributes:
        source: What it asks for: ``clock``, ``entropy``, ``seed``, ``identity``, ``gradient mode``,
            ``inference mode`` or ``setting``.
        other: Gives the result of a trial for the real result, the number of the trial, the original and the arguments.
        is_asking: Tells by the arguments whether this call asks at all.
        condition: Gives the condition under which the answer is what it is; None where there is none to give.
        skips_libraries: Whether calls by torch and other libraries do not count.
    """

    source: str
    other: Function
    is_asking: Callable[[tuple[Any, ...]], bool] = lambda _: True
    condition: Callable[[Any, tuple[Any, ...]], Condition | None] = lambda *_: None
    skips_libraries: bool = False


def _shifted(now: Any, trial: int, *_: Any, **__: Any) -> Any:
    seconds = (trial + 1) * SHIFT_SECONDS
    return now + (int(seconds * _NANO) if type(now) is int else seconds)


def _shifted_calendar(_: Any, trial: int, original: Function, *args: Any) -> Any:
    seconds = _now() + (trial + 1) * SHIFT_SECONDS
    if original in (_formatted, _as_time):
        return original(*args, _there(seconds))
    return original(seconds)


def _shifted_date(now: datetime, trial: int, *_: Any, **__: Any) -> datetime:
    return now + timedelta(seconds=(trial + 1) * SHIFT_SECONDS)


def _shifted_times(now: Any, trial: int, *_: Any) -> Any:
    return type(now)(value + (trial + 1) * SHIFT_SECONDS for value in now)


def _other_name(name: UUID, trial: int, *_: Any, **__: Any) -> UUID:
    return UUID(int=name.int ^ seeded(trial).getrandbits(128))


def _other_bytes(_: bytes, trial: int, __: Function, count: int, *___: Any) -> bytes:
    return seeded(trial).randbytes(count)


def _other_number(number: int, trial: int, *_: Any, **__: Any) -> int:
    """Return another number for each, large ones for small ones as well; two trials give opposite bits."""
    return ((number + 1 + trial // 2) * _ODD ^ -(trial % 2)) % _RANGE


def _opposite(answer: bool, *_: Any) -> bool:  # noqa: FBT001
    return not answer


def _other_dtype(answer: torch.dtype, *_: Any) -> torch.dtype:
    pairs = {torch.float32: torch.float64, torch.bfloat16: torch.float16}
    return {**pairs, **{other: one for one, other in pairs.items()}}[answer]


def _autocast_of(device: str | None) -> Callable[[Any, tuple[Any, ...]], Condition | None]:
    """Return what makes the condition for the answer about a device, that of the first argument by default."""

    def condition(answer: bool, args: tuple[Any, ...]) -> Condition | None:  # noqa: FBT001
        asked = device or (args[0] if args else "cuda")
        return setting_is(f"autocast {asked}", value=answer) if asked in DEVICES else None

    return condition


def _autocast_dtype_of(device: str | None) -> Callable[[Any, tuple[Any, ...]], Condition | None]:
    def condition(answer: torch.dtype, args: tuple[Any, ...]) -> Condition | None:
        return _of_dtype(f"autocast dtype {device or args[0]}", answer)

    return condition


def _of_dtype(name: str, answer: torch.dtype) -> Condition | None:
    full = f"{name} {str(answer).removeprefix('torch.')}"
    return setting_is(full, value=True) if full in SETTINGS else None


def _asks_caller(device: str | None, *, dtype: bool = False) -> Callable[[tuple[Any, ...]], bool]:
    """Return what tells whether a question about autocast goes to the caller of the model, not to the model itself."""
    return lambda args: not is_decided(device or (args[0] if args else "cuda"), dtype=dtype)


def _autocast_asked(device: str | None) -> Asked:
    return Asked("setting", _opposite, _asks_caller(device), _autocast_of(device), skips_libraries=True)


def _autocast_dtype_asked(device: str | None) -> Asked:
    is_asking = _asks_caller(device, dtype=True)
    return Asked("setting", _other_dtype, is_asking, _autocast_dtype_of(device), skips_libraries=True)


def _setting(other: Function, condition: Callable[[Any, tuple[Any, ...]], Condition | None]) -> Asked:
    return Asked("setting", other, condition=condition, skips_libraries=True)


_NUMBERS_OF_CLOCKS = (
    *(name + unit for name in ("time", "perf_counter", "monotonic", "process_time", "thread_time", "clock_gettime")
      for unit in ("", "_ns")),
)  # fmt: skip
_CALENDAR = {
    name: Asked("clock", _shifted_calendar, lambda args, enough=enough: len(args) <= enough)  # type: ignore[misc]
    for name, enough in _WITHOUT_TIME.items()
}
_TABLE: dict[str, dict[str, Asked]] = {
    "time": {**dict.fromkeys(_NUMBERS_OF_CLOCKS, Asked("clock", _shifted)), **_CALENDAR},
    "os": {
        **dict.fromkeys(("urandom", "getrandom"), Asked("entropy", _other_bytes)),
        "times": Asked("clock", _shifted_times),
    },
    "uuid": {"uuid1": Asked("clock", _other_name)},
    "torch": {
        "is_grad_enabled": Asked("gradient mode", _opposite, skips_libraries=True),
        "is_inference_mode_enabled": Asked("inference mode", _opposite, skips_libraries=True),
        "is_autocast_enabled": _autocast_asked(None),
        "is_autocast_cpu_enabled": _autocast_asked("cpu"),
        "get_autocast_dtype": _autocast_dtype_asked(None),
        "get_autocast_cpu_dtype": _autocast_dtype_asked("cpu"),
        "get_autocast_gpu_dtype": _autocast_dtype_asked("cuda"),
        "are_deterministic_algorithms_enabled": _setting(
            _opposite, lambda answer, _: setting_is("deterministic algorithms", value=answer)
        ),
        "initial_seed": Asked("seed", _other_number, skips_libraries=True),
        "get_default_dtype": _setting(_other_dtype, lambda answer, _: _of_dtype("default dtype", answer)),
    },
}
"""By module and name. ``datetime.now`` and its siblings are methods of a builtin class, see `DATES`."""
DATES = dict.fromkeys(("now", "utcnow", "today"), Asked("clock", _shifted_date))
"""Class methods of ``datetime.datetime``."""
DATE = datetime
IDENTITIES = frozenset({"id", "hash"})
"""Builtins that tell where an object lies in memory."""
IDENTITY = Asked("identity", _other_number)
"""What they ask for, of objects that a run made."""


class Watched(NamedTuple):
    """A function that exists in this process.

    Attributes:
        owner: The namespace of the module that defines it.
        name: Its name there.
        original: The function.
        asked: What it asks for.
    """

    owner: dict[str, Any]
    name: str
    original: Function
    asked: Asked


def watched_functions() -> Iterator[Watched]:
    """Yield the functions of the table whose modules are loaded."""
    for module, functions in _TABLE.items():
        owner = vars(sys.modules[module]) if module in sys.modules else {}
        for name, asked in functions.items():
            if name in owner:
                yield Watched(owner, name, owner[name], asked)


def watched_ids() -> frozenset[int]:
    """Return the ids of what is watched: functions, and the class ``datetime.datetime``."""
    return frozenset({id(DATE), *(id(watched.original) for watched in watched_functions())})


class Answers:
    """Counts the questions to one source, and gives other answers once it is steered."""

    def __init__(self, thread: int) -> None:
        self.thread, self._calls = thread, 0
        self._conditions: dict[Hashable, None] = {}
        self.trial: int | None = None

    def read(self) -> int:
        """Return the number of questions."""
        return self._calls

    def steer(self, trial: int) -> None:
        """Give the answers of a trial."""
        self.trial = trial

    def release(self) -> None:
        """Give the real answers again."""
        self.trial = None

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions under which the real answers are what they are."""
        return tuple(self._conditions)  # type: ignore[arg-type]

    def answer(self, asked: Asked, original: Function, result: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """Return the answer to a question, given the real one."""
        self._calls += 1
        condition = asked.condition(result, args)
        if condition is not None:
            self._conditions[condition] = None
        return result if self.trial is None else asked.other(result, self.trial, original, *args, **kwargs)
