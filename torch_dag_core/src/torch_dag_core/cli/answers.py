"""What a command says: lines for people, or with ``--json`` one JSON object for programs; ``--quiet`` neither.

With ``--verbose``, versions and the time of each step are printed to standard error as well.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from torch_dag_core.cli.table_widths import fitting_console
from torch_dag_core.plugins.discovery import distribution_version

F = TypeVar("F", bound=Callable[..., Any])

_JSON = "torch_dag_core.cli.json"
_QUIET = "torch_dag_core.cli.quiet"
_VERBOSE = "torch_dag_core.cli.verbose"
_VERSIONS = ("torch-dag-core", "torch")


def answers(command: F) -> F:
    """Give a command the flags ``--json``, ``--quiet`` and ``--verbose``, which the functions below follow."""
    for flag, key, text in (
        ("--json", _JSON, "Print one JSON object instead of text."),
        ("--quiet", _QUIET, "Print nothing but errors and, with --json, the object."),
        ("--verbose", _VERBOSE, "Print versions and the time of each step to standard error."),
    ):
        command = click.option(
            flag, is_flag=True, is_eager=True, expose_value=False, callback=_noting(key), help=text
        )(command)  # fmt: skip
    return command


def _noting(key: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    def note_flag(ctx: click.Context, _: click.Parameter, given: bool) -> None:  # noqa: FBT001
        ctx.meta[key] = given
        if ctx.meta.get(_QUIET) and ctx.meta.get(_VERBOSE):
            message = "--quiet and --verbose contradict each other; give one of them"
            raise click.UsageError(message, ctx)
        if given and key == _VERBOSE:
            found = [f"{name} {distribution_version(name)}" for name in _VERSIONS]
            click.echo(f"{', '.join(found)}, Python {platform.python_version()}", err=True)

    return note_flag


def _is_on(key: str) -> bool:
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.meta.get(key))


def is_quiet() -> bool:
    """Tell whether the running command is to print errors alone."""
    return _is_on(_QUIET)


def say(text: Any) -> None:
    """Print text, or a table of rich, to standard output, where people read it."""
    if _is_on(_JSON) or is_quiet():
        return
    if isinstance(text, str):
        click.echo(text)
    else:
        is_table = isinstance(text, Table)
        console = fitting_console(text) if is_table else Console(soft_wrap=True)
        console.print(text, soft_wrap=not is_table)


def note(text: str) -> None:
    """Print a remark to standard error, unless the command is quiet."""
    if not is_quiet():
        click.echo(text, err=True)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say on standard error how long a step took, where the command is to be verbose."""
    start = time.perf_counter()
    yield
    if _is_on(_VERBOSE):
        click.echo(f"{what}: {time.perf_counter() - start:.2f} s", err=True)


def answer(**values: Any) -> None:
    """Print the result of a command as one JSON object, where that is asked for."""
    if _is_on(_JSON):
        click.echo(json.dumps(_plain(values), allow_nan=False))


def _plain(value: Any) -> Any:
    """Return what JSON can hold; everything that it cannot hold as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return str(value)  # infinities and NaN are no JSON
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
