"""Calls into functions that a plugin registered, so that what goes wrong in one always has a name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch_dag_core.errors import PluginError, TorchDagError
from torch_dag_core.plugins.discovery import described, distribution_version

CORE_DISTRIBUTION = "torch-dag-core"


def named(owner: str) -> str:
    """Return a distribution with its installed version: ``'torch-dag-timm' 0.1.0``."""
    return f"{owner!r} {distribution_version(owner)}".rstrip()


def is_foreign(owner: str) -> bool:
    """Tell whether a record comes from a plugin: not from the core, nor from the user's own registry."""
    return owner not in ("", CORE_DISTRIBUTION)


@contextmanager
def blaming(owner: str, what: str) -> Iterator[None]:
    """Name the distribution whose function fails; errors of torch-dag's own, and of the core's functions, pass.

    Args:
        owner: Distribution that registered the function.
        what: The function and what it was called for.

    Raises:
        PluginError: ``what`` of the distribution raised.
    """
    try:
        yield
    except TorchDagError:
        raise
    except Exception as error:
        if not is_foreign(owner):
            raise
        message = f"{what} of {named(owner)} raised {described(error)}"
        raise PluginError(owner, message) from error
