"""What a command says: lines for people, or with ``--json`` one JSON object for programs; ``--quiet`` neither."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

F = TypeVar("F", bound=Callable[..., Any])

_JSON = "torch_dag_core.cli.json"
_QUIET = "torch_dag_core.cli.quiet"


def answers(command: F) -> F:
    """Give a command the flags ``--json`` and ``--quiet``, which `say`, `note` and `answer` follow."""
    for flag, key, text in (
        ("--json", _JSON, "Print one JSON object instead of text."),
        ("--quiet", _QUIET, "Print nothing but errors and, with --json, the object."),
    ):
        command = click.option(
            flag, is_flag=True, is_eager=True, expose_value=False, callback=_noting(key), help=text
        )(command)  # fmt: skip
    return command


def _noting(key: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    def note_flag(ctx: click.Context, _: click.Parameter, given: bool) -> None:  # noqa: FBT001
        ctx.meta[key] = given

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
        Console(soft_wrap=True).print(text, soft_wrap=not isinstance(text, Table))


def note(text: str) -> None:
    """Print a remark to standard error, unless the command is quiet."""
    if not is_quiet():
        click.echo(text, err=True)


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
