"""Which models of a library are examined, in which order, and the examination of one after the other."""

from __future__ import annotations

import math
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch

from torch_dag_core.cli.coverage.examination import Row
from torch_dag_core.cli.coverage.library import Listed
from torch_dag_core.cli.coverage.processes import (
    Limits,
    Loader,
    Processes,
    count_parameters,
    is_out_of_memory,
    received,
)
from torch_dag_core.cli.coverage.record import CoverageFile

_BYTES_PER_PARAMETER = 4
_COPIES = 8
"""How often the weights of a model are in memory at the peak of its examination."""
_SECONDS_TO_BUILD = 600.0


@dataclass(frozen=True)
class Choice:
    """Which models are examined.

    Attributes:
        filters: Wildcards, any of which a name must match; all names if there are none.
        most_parameters: Larger models are left out.
        shard: (i, n) takes every n-th model, beginning with the i-th from 1 on.
    """

    filters: Sequence[str] = ()
    most_parameters: float = math.inf
    shard: tuple[int, int] = (1, 1)

    def matches(self, name: str) -> bool:
        """Tell whether a filter matches a name."""
        return not self.filters or any(fnmatch(name, pattern) for pattern in self.filters)

    def select(self, parameters: dict[str, int | None]) -> list[str]:
        """Return the models to examine, small ones first; those of unknown size last, unless there is a limit."""
        sizes = {name: math.inf if n is None else n for name, n in parameters.items() if self.matches(name)}
        limited = math.isfinite(self.most_parameters)
        names = [name for name, n in sizes.items() if n <= self.most_parameters and not (limited and math.isinf(n))]
        first, step = self.shard
        return sorted(names, key=lambda name: (sizes[name], name))[first - 1 :: step]


def sizes_of(models: Mapping[str, Listed], processes: Processes) -> Iterator[tuple[str, int | None]]:
    """Iterate over models with their numbers of parameters; None where a model cannot be built without memory."""
    left = list(models)
    while left:
        with processes.started(count_parameters, [models[name] for name in left]) as (_, connection):
            for count in received(connection, _SECONDS_TO_BUILD):
                yield left.pop(0), count
        if left:
            yield left.pop(0), None  # the process died while it built this one


class Survey:
    """The examination of many models.

    Attributes:
        file: Where the rows go.
        models: How each model is built and called.
        say: Shows one line of progress.
        structure_only: Whether no model gets weights, whatever its size.
    """

    def __init__(
        self, file: CoverageFile, models: Mapping[str, Listed], processes: Processes, say: Callable[[str], None], *,
        structure_only: bool = False,
    ) -> None:  # fmt: skip
        self.file, self.models, self.say, self.structure_only = file, models, say, structure_only
        self._processes = processes
        self._work: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Row | BaseException] = queue.SimpleQueue()
        self._stopping = threading.Event()

    def run(self, names: Sequence[str], jobs: int) -> None:
        """Examine models, some at once, and write the row of each as soon as it is there."""
        for name in names:
            self._work.put(name)
        workers = [threading.Thread(target=self._take, daemon=True) for _ in range(jobs)]
        for worker in workers:
            worker.start()
        try:
            for place in range(len(names)):
                row = self._done.get()
                if isinstance(row, BaseException):
                    raise row
                self.file.add(row)
                self.say(f"{place + 1}/{len(names)} {row['model']}: {self._in_words(row)}")
        finally:
            self._stopping.set()
            self._processes.stop()

    def _take(self) -> None:
        loader = Loader(self._processes)
        try:
            while not self._stopping.is_set():
                self._done.put(self._examine(self._work.get_nowait(), loader))
        except queue.Empty:
            pass
        except BaseException as error:  # noqa: BLE001 - raised by the thread that waits for rows
            self._done.put(error)
        finally:
            loader.stop()

    def _examine(self, name: str, loader: Loader) -> Row:
        listed = self.models[name]
        size = self.file.parameters.get(name) or 0
        fits = size * _BYTES_PER_PARAMETER * _COPIES <= (self._processes.limits.bytes or physical_memory())
        has_weights = fits and not self.structure_only
        row = self._processes.examine(name, listed, loader, has_weights=has_weights)
        if has_weights and is_out_of_memory(row):
            row = self._processes.examine(name, listed, loader, has_weights=False)
        return row

    def _in_words(self, row: Row) -> str:
        """Return the outcome of one model in a line."""
        seconds = f"{row['seconds'].get('total', 0):.1f} s"
        if row["failures"]:
            reasons = "; ".join(f"{step}: {reason}" for step, reason in row["failures"].items())
            return f"failed ({seconds}): {reasons}"
        if row["has_weights"]:
            return f"ok ({seconds})"
        return f"structure only{'' if self.structure_only else ', too large for memory'} ({seconds})"


def physical_memory() -> float:
    """Return the bytes of memory that this machine has; infinity where the system does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ValueError, OSError, AttributeError):  # not on Windows
        return math.inf


def limits_of(seconds: float, gigabytes: float | None) -> Limits:
    """Return limits with memory in bytes."""
    return Limits(seconds, None if gigabytes is None else round(gigabytes * 1e9))
