"""What a trace answers to libraries that ask whether they may look at the content of tensors."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch


@contextlib.contextmanager
def capture_announced() -> Iterator[None]:
    """Answer ``torch.cuda.is_current_stream_capturing()`` with yes, to the libraries that the tracing thread runs.

    A capture is the one state in which a library must not read values but otherwise computes what it always does,
    which is what a trace needs. Under ``torch.jit.is_tracing`` and ``torch.compiler.is_compiling`` models resample
    position embeddings that already fit, or leave out masks. Torch itself still gets the true answer.
    """
    module: Any = torch.cuda
    original: Callable[[], bool] = module.is_current_stream_capturing
    thread = threading.get_ident()

    def is_current_stream_capturing() -> bool:
        asker = str(sys._getframe(1).f_globals.get("__name__", ""))
        if threading.get_ident() == thread and asker.partition(".")[0] != "torch":
            return True
        return original()

    module.is_current_stream_capturing = is_current_stream_capturing
    try:
        yield
    finally:
        module.is_current_stream_capturing = original
