"""Printing to the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text


def console() -> Console:
    """Return a console for progress messages, which are printed to standard error."""
    return Console(stderr=True)


def print_line(style: str, message: str) -> None:
    """Print one coloured line to standard error."""
    Console(stderr=True, soft_wrap=True).print(Text(" ".join(message.split()), style=style))
