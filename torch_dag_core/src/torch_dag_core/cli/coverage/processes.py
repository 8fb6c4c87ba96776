"""Processes that examine one model each, with limits of time and memory, and one that loads what they saved."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from torch_dag_core.cli.coverage.examination import Examination, Request, Row, reason_of
from torch_dag_core.cli.coverage.kept import EQUAL, BlockedImport, verdicts
from torch_dag_core.cli.coverage.library import Listed

_STARTUP_SECONDS = 120.0
_MOST_FOLDERS = 100
"""How many models one process loads, whose memory grows with each."""
_OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "MemoryError", "out of memory")


@dataclass(frozen=True)
class Limits:
    """What the examination of one model may take.

    Attributes:
        seconds: Wall-clock time.
        bytes: Memory of the process; None for no limit.
    """

    seconds: float
    bytes: int | None = None


class Processes:
    """Starts the processes of a survey, and ends those that run when it ends.

    Attributes:
        limits: Of each examination.
    """

    def __init__(self, limits: Limits, packages: Sequence[str]) -> None:
        """Prepare to start processes.

        Args:
            limits: Of each examination.
            packages: Imported once, before processes are forked, where the system can fork.
        """
        self.limits = limits
        self._running: set[Any] = set()
        fork = "forkserver" in multiprocessing.get_all_start_methods()
        self._context: Any = multiprocessing.get_context("forkserver" if fork else "spawn")
        if fork:
            self._context.set_forkserver_preload([__name__, *packages])

    def examine(self, model: str, listed: Listed, loader: Loader, *, has_weights: bool) -> Row:
        """Examine one model, within the limits, and load what was saved of it in another process.

        Returns:
            The row of the model; where the process did not end by itself, what was known until then and the reason.
        """
        folder = Path(tempfile.mkdtemp(prefix="torch-dag-coverage-"))
        try:
            request = Request(model, listed, folder, has_weights)
            row = self._row(request)
            row["reload"] = loader.verdicts(folder, row.get("packages", []))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        failed = {f"reload {name}": said for name, said in row["reload"].items() if said != EQUAL}
        row["failures"] |= failed
        row["date"] = f"{datetime.now(UTC):%Y-%m-%d}"
        return row

    def _row(self, request: Request) -> Row:
        start = time.perf_counter()
        row: Row = {"model": request.model, "has_weights": request.has_weights, "failures": {}, "seconds": {}}
        row["step"] = "start"
        with self.started(_examine, request, self.limits.bytes) as (process, connection):
            for row in received(connection, self.limits.seconds):  # noqa: B007 - the last one counts
                pass
            late = time.perf_counter() - start >= self.limits.seconds
            process.join(timeout=0 if late else _STARTUP_SECONDS)
        row["seconds"]["total"] = round(time.perf_counter() - start, 2)
        step = row.pop("step")
        if step:
            row["failures"][step] = self._end(process, late=late)
        return row

    def _end(self, process: Any, *, late: bool) -> str:
        """Return why a process did not finish its examination."""
        if late:
            return f"took more than {self.limits.seconds:g} s"
        code = process.exitcode
        return f"the process was killed by signal {-code}" if code and code < 0 else f"the process died ({code})"

    @contextmanager
    def started(self, target: Callable[..., None], *arguments: Any, spawn: bool = False) -> Iterator[tuple[Any, Any]]:
        """Run a function in a new process, which is killed at the end of the block if it still runs."""
        context: Any = multiprocessing.get_context("spawn") if spawn else self._context
        ours, theirs = context.Pipe()
        process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
        process.start()
        theirs.close()
        self._running.add(process)
        try:
            yield process, ours
        finally:
            ours.close()
            process.kill()
            process.join()
            self._running.discard(process)

    def stop(self) -> None:
        """Kill every process that still runs."""
        for process in list(self._running):
            process.kill()


class Loader:
    """A process without plugins that loads graphs, where the source of their models cannot be imported."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._block: Any = None
        self._connection: Any = None
        self._folders = 0

    def verdicts(self, folder: Path, packages: Sequence[str]) -> dict[str, str]:
        """Return what `kept.verdicts` says in the other process."""
        if not any(folder.iterdir()):
            return {}
        self._folders += 1
        if self._folders % _MOST_FOLDERS == 0:
            self.stop()
        if self._connection is None:
            self._block = self._processes.started(_load, spawn=True)
            _, self._connection = self._block.__enter__()
        self._connection.send((folder, list(packages)))
        for answer in received(self._connection, self._processes.limits.seconds + _STARTUP_SECONDS):
            return dict(answer)
        self.stop()
        return {"all": "the process that loads the files took too long or died"}

    def stop(self) -> None:
        """End the process."""
        if self._connection is not None:
            self._connection = None
            self._block.__exit__(None, None, None)


def received(connection: Connection, seconds: float) -> Iterator[Any]:
    """Iterate over what another process sends, until it ends or the time is over."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if not connection.poll(max(0.0, deadline - time.monotonic())):
                return
            yield connection.recv()
        except (EOFError, OSError):
            return


def is_out_of_memory(row: Row) -> bool:
    """Tell whether the examination of a model ended because of too little memory."""
    return any(text in reason for reason in row["failures"].values() for text in _OUT_OF_MEMORY)


# In other processes ----------------------------------------------------------------------------------------------


def _examine(connection: Connection, request: Request, most_bytes: int | None) -> None:
    _silence()
    if most_bytes is not None:
        limit_memory(most_bytes)
    Examination(request, connection.send).run()


def _load(connection: Connection) -> None:
    os.environ["TORCH_DAG_PLUGINS"] = ""
    _silence()
    blocked = BlockedImport()
    while True:
        try:
            folder, packages = connection.recv()
        except (EOFError, OSError, KeyboardInterrupt):
            return
        try:
            blocked.block(packages)
            answer = verdicts(folder)
        except Exception as error:  # noqa: BLE001 - the reason is the answer
            answer = {"all": reason_of(error)}
        connection.send(answer)


def count_parameters(connection: Connection, models: Iterable[Listed]) -> None:
    """Send the number of parameters of each model, built without memory; None where that is not possible."""
    import torch

    from torch_dag_core.cli.references import load_model

    _silence()
    for each in models:
        try:
            with torch.device("meta"):
                model = load_model(each.reference, each.arguments)
            connection.send(sum(parameter.numel() for parameter in model.parameters()))
        except Exception:  # noqa: BLE001 - some models read values while they are built
            connection.send(None)


def _silence() -> None:
    """Discard what models print, and warnings."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(descriptor, stream)


def limit_memory(most_bytes: int) -> None:
    """Let allocations of this process fail beyond a limit; on Linux, where that counts what is written to alone."""
    import resource

    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_DATA, (most_bytes, most_bytes))
