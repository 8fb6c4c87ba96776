"""Calls into functions that a plugin registered, so that a failure in one always names the plugin."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch_dag_core.errors import PluginError, TorchDagError
from torch_dag_core.plugins.discovery import CORE_DISTRIBUTION, PASSED_ON, distribution_version, installed, one_line


def release_name(owner: str) -> str:
    """Return a distribution with its installed version: ``'torch-dag-timm' 0.1.0``."""
    return f"{owner!r} {distribution_version(owner)}".rstrip()


def is_foreign(owner: str) -> bool:
    """Tell whether a record comes from a plugin: not from the core, nor from the user's own registry."""
    return owner not in ("", CORE_DISTRIBUTION)


def defining_distribution(function: Callable[..., Any]) -> str:
    """Return the distribution of the plugin in whose package a function is defined; empty where it is in none."""
    while isinstance(function, functools.partial):
        function = function.func
    package = (getattr(function, "__module__", None) or "").partition(".")[0]
    points = (point for candidate in installed() for point in candidate.entry_points)
    found = (point.dist.name for point in points if point.dist and point.module.partition(".")[0] == package)
    return next(found, "")


@contextmanager
def errors_attributed_to(owner: str, what: str) -> Iterator[None]:
    """Turn what a plugin's function raises into a `PluginError` that names the distribution.

    Errors of torch-dag's own and of the core's functions pass unchanged, and so do `KeyboardInterrupt` and
    `GeneratorExit`, which are no failures. Every other exception is one, `SystemExit` included.

    Args:
        owner: Distribution that registered the function.
        what: The function and what it was called for.

    Raises:
        PluginError: ``what`` of the distribution raised.
    """
    try:
        yield
    except (TorchDagError, *PASSED_ON):
        raise
    except BaseException as error:
        if not is_foreign(owner):
            raise
        message = f"{what} of {release_name(owner)} raised {one_line(error)}"
        raise PluginError(owner, message) from error
