"""Printing to the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from torch_dag_core.cli.answers import is_quiet


def console() -> Console:
    """Return a console for progress messages, which are printed to standard error unless the command is quiet."""
    return Console(stderr=True, quiet=is_quiet())


def print_line(style: str, message: str) -> None:
    """Print one coloured line to standard error."""
    Console(stderr=True, soft_wrap=True).print(Text(" ".join(message.split()), style=style))
