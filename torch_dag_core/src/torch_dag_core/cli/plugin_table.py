"""The command ``torch-dag plugins``."""

from __future__ import annotations

from collections.abc import Callable

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from torch_dag_core.algorithms import algorithms
from torch_dag_core.cli.console import print_line
from torch_dag_core.errors import TorchDagError
from torch_dag_core.plugin_discovery import VARIABLE
from torch_dag_core.plugins import PluginInfo, default_registry, list_plugins


@click.command()
def plugins() -> None:
    """Show the installed plugins and what is wrong with them."""
    conflicts = [error for build in (default_registry, algorithms) if (error := _conflict(build)) is not None]
    table = Table("plugin", "distribution", "version", "hooks", "state")
    for info in list_plugins():
        hooks = "\n".join(hook.removeprefix("torch_dag_") for hook in info.hooks)
        table.add_row(info.name, info.distribution, info.version, hooks, _state(info))
    Console().print(table)
    for error in conflicts:
        print_line("red", f"error: {error}")


def _conflict(build: Callable[[], object]) -> TorchDagError | None:
    """Run what asks the plugins, so that all of their errors are known before they are listed."""
    try:
        build()
    except TorchDagError as error:
        return error
    return None


def _state(info: PluginInfo) -> Text:
    if info.error is not None:
        return Text(str(info.error), style="red")
    return Text(f"switched off by {VARIABLE}", style="yellow") if info.disabled else Text("on", style="green")
