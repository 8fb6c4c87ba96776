"""The command group ``torch-dag``: the core's commands, those of plugins, and how errors are shown.

The modules of commands import torch, and whatever imports torch, only inside of their functions, so that help and
completion come at once. A plugin whose modules do otherwise works too, but slows them down.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import click

from torch_dag_core.cli.algorithm_table import list_algorithms
from torch_dag_core.cli.compare import compare
from torch_dag_core.cli.console import print_line
from torch_dag_core.cli.convert import convert, show
from torch_dag_core.cli.coverage.command import coverage, coverage_table
from torch_dag_core.cli.module_costs import flops
from torch_dag_core.cli.new_plugin import new_plugin
from torch_dag_core.cli.plugin_table import plugins
from torch_dag_core.cli.run import run
from torch_dag_core.cli.unknown_command import unknown_command
from torch_dag_core.errors import PluginWarning, TorchDagError
from torch_dag_core.plugins.loading import named_contributions


class Application(click.Group):
    """A command group that includes the commands of plugins. Plugins are loaded when a command is looked up."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        """Run a command. Without ``--debug``, an error of torch-dag or of a file is one red line, with exit code 1."""
        arguments = list(sys.argv[1:] if args is None else args)
        with warnings.catch_warnings():
            warnings.simplefilter("always", PluginWarning)
            warnings.showwarning = _showing_plugin_warnings(warnings.showwarning)
            try:
                return super().main(arguments, *rest, **options)
            except (TorchDagError, OSError) as error:
                if "--debug" in arguments:
                    raise
                print_line("red", f"error: {_sentence(error)}")
                sys.exit(1)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the core's commands and those of plugins."""
        return sorted({*super().list_commands(ctx), *self._plugin_commands(ctx)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of this name; a plugin cannot replace one of the core's."""
        own = super().get_command(ctx, cmd_name)
        return own or self._plugin_commands(ctx).get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is called; where there is none, say which may be meant or what is to be installed."""
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(unknown_command(name, self.list_commands(ctx)))
        return super().resolve_command(ctx, args)

    def _plugin_commands(self, ctx: click.Context) -> dict[str, click.Command]:
        own = super().list_commands(ctx)
        return named_contributions("torch_dag_commands", click.Command, taken=own)


def _sentence(error: Exception) -> str:
    """Return the message of an error; that of the system's own starts with the file instead of a number."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{str(error.filename)!r}: {error.strerror}"
    return str(error)


def _showing_plugin_warnings(show: Callable[..., None]) -> Callable[..., None]:
    def show_one(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if issubclass(category, PluginWarning):
            print_line("yellow", f"warning: {message}")
        else:
            show(message, category, *place)

    return show_one


@click.group(cls=Application, name="torch-dag")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
@click.version_option(package_name="torch-dag-core")
def app() -> None:
    """Convert, inspect and edit models as graphs."""


app.add_command(compare)
app.add_command(convert)
app.add_command(coverage)
app.add_command(coverage_table)
app.add_command(flops)
app.add_command(list_algorithms)
app.add_command(new_plugin)
app.add_command(plugins)
app.add_command(run)
app.add_command(show)
