"""Where the traced model is at a moment, for the origins of entries and for errors."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

import torch
from torch import is_grad_enabled  # not its replacement, which counts the model's calls

from torch_dag_core.errors import TraceError
from torch_dag_core.tracing.recording import Origin

_LIBRARY_FOLDERS = (
    f"{Path(torch.__file__).parent}{os.sep}", f"{Path(__file__).parents[1]}{os.sep}", contextlib.__file__
)  # fmt: skip

USE_ATOMIC = "register the enclosing module as atomic (atomic_modules=)"


class Location:
    """The modules that are running, outermost first, and the line of the model's code.

    Attributes:
        modules: Paths of the running modules; empty while only the model itself runs.
    """

    def __init__(self) -> None:
        self.modules: list[str] = []

    @property
    def scope(self) -> str:
        """Path of the innermost running module; empty for the model itself."""
        return self.modules[-1] if self.modules else ""

    def __str__(self) -> str:
        return f"module {self.scope!r}" if self.scope else "the model itself"

    def origin(self) -> Origin:
        """Return the origin of an entry that comes about now."""
        return Origin(self.scope, caller(), is_grad_enabled())

    def complaint(self, what: str) -> str:
        """Return a message that names module, file and line, and the way out."""
        return f"{what}, in {self}, at {caller()}; {USE_ATOMIC}"

    def fail(self, what: str) -> NoReturn:
        """Raise the `TraceError` of this `complaint`."""
        raise TraceError(self.complaint(what))


def caller() -> str:
    """Return ``file:line`` of the innermost frame outside torch and this package."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_LIBRARY_FOLDERS):
        frame = frame.f_back
    return "unknown" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


def failed_at(trace: TracebackType | None) -> str:
    """Return ``file:line`` of the innermost frame of a traceback outside torch and this package."""
    place = "unknown"
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith(_LIBRARY_FOLDERS):
            place = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
