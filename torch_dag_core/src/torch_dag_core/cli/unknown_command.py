"""What is said of a command that does not exist here."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from torch_dag_core.plugins.discovery import VARIABLE
from torch_dag_core.plugins.loading import list_plugins

COMMANDS_OF_PLUGINS = {
    "export": "torch-dag-export",
    "inspect": "torch-dag-pruning",
    "prune": "torch-dag-pruning",
    "sensitivity": "torch-dag-pruning",
    "sweep": "torch-dag-pruning",
    "sweep-plot": "torch-dag-pruning",
    "share": "torch-dag-hub",
}
"""Commands that our own plugins add, with their distributions, so that they can be named where these are missing."""


def unknown_command(name: str, commands: Collection[str]) -> str:
    """Return a sentence about a command that was called and does not exist.

    Args:
        name: What was called.
        commands: The commands that exist.
    """
    said = f"No such command {name!r}"
    if name in COMMANDS_OF_PLUGINS:
        return f"{said}: it comes with {_reason(COMMANDS_OF_PLUGINS[name])}"
    close = difflib.get_close_matches(name, {*commands, *COMMANDS_OF_PLUGINS}, n=3)
    if not close:
        return f"{said}; `torch-dag --help` lists the commands."
    hints = [repr(each) if each in commands else f"{each!r} of {COMMANDS_OF_PLUGINS[each]}" for each in close]
    return f"{said}; did you mean {' or '.join(hints)}?"


def _reason(distribution: str) -> str:
    """Say why a distribution adds no commands, and what to do about it."""
    info = next((info for info in list_plugins() if info.distribution == distribution), None)
    if info is None:
        return f"{distribution}, which is not installed; pip install {distribution}"
    if info.disabled:
        return f"{distribution}, which is switched off by {VARIABLE}; add {info.name!r} to that list or unset it"
    return f"{distribution}, which failed; `torch-dag plugins` shows its error"
