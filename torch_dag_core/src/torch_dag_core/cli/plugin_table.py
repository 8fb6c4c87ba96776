"""The command ``torch-dag plugins``."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import click
from rich.table import Table
from rich.text import Text

from torch_dag_core.algorithms.algorithm import AlgorithmSpec, algorithms
from torch_dag_core.cli.answers import answer, answers, say
from torch_dag_core.cli.examples import example
from torch_dag_core.errors import PluginWarning, TorchDagError
from torch_dag_core.plugins.loading import PluginInfo, contributions, default_registry, list_plugins


@click.command(epilog=example("torch-dag plugins --json"))
@answers
def plugins() -> None:
    """Show the installed plugins and their errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)  # the errors themselves follow below
        conflicts = [error for build in (default_registry, algorithms) if (error := _conflict(build)) is not None]
    stubs = _stubs()
    table = Table("plugin", "distribution", "version", "hooks", "state")
    for info in list_plugins():
        hooks = ", ".join(hook.removeprefix("torch_dag_") for hook in info.hooks)
        table.add_row(info.name, info.distribution, info.version, hooks, _state(info, stubs))
    say(table)
    for error in (*(info.error for info in list_plugins() if info.error is not None), *conflicts):
        say(Text(str(error), style="red"))
    answer(plugins=[
        {"name": info.name, "distribution": info.distribution, "version": info.version, "hooks": info.hooks,
         "state": _state(info, stubs).plain, "error": None if info.error is None else str(info.error)}
        for info in list_plugins()
    ], errors=[str(error) for error in conflicts])  # fmt: skip


def _conflict(build: Callable[[], object]) -> TorchDagError | None:
    """Collect everything that plugins add, so that their errors are known before the plugins are listed."""
    try:
        build()
    except TorchDagError as error:
        return error
    return None


def _stubs() -> frozenset[str]:
    """Return the distributions that have an algorithm whose status is "stub"."""
    found = contributions("torch_dag_algorithms", AlgorithmSpec)
    return frozenset(owner for owner, spec in found if spec.status == "stub")


def _state(info: PluginInfo, stubs: frozenset[str]) -> Text:
    if info.error is not None:
        return Text("failed", style="red")
    if info.disabled:
        return Text("off", style="yellow")
    return Text("on, stub", style="yellow") if info.distribution in stubs else Text("on", style="green")
