"""Examples in the help of commands."""

from __future__ import annotations


def example(command: str) -> str:
    """Return the end of a command's help: a call of it, on a line that is not broken.

    Args:
        command: A whole line for the shell.
    """
    return f"\b\nExample:\n  {command}"
