"""The hooks of torch-dag that this plugin implements."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch_dag_core.plugins.hookspecs import hookimpl

if TYPE_CHECKING:
    import click


@hookimpl
def torch_dag_commands() -> Iterable[click.Command]:
    """Add ``torch-dag share``, which writes a folder for the Hub or uploads it."""
    from torch_dag_hub.command import share

    return (share,)
