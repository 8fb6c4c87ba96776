"""Full garbage collections wait while a model is converted."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

_SELDOM = 10_000
"""After how many collections of the middle generation a full one follows; Python's default is 10."""


@contextlib.contextmanager
def without_full_collections() -> Iterator[None]:
    """Let no full collection start, which would look at every object of every imported library.

    What a conversion makes lives until it ends, so that such a collection finds nothing and takes as long as several
    runs of the model. Young objects are collected as before.
    """
    young, middle, full = gc.get_threshold()
    gc.set_threshold(young, middle, max(full, _SELDOM))
    try:
        yield
    finally:
        gc.set_threshold(young, middle, full)
