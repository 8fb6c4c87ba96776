"""Paths that a command writes to: checked before any work, and never overwritten without ``--force``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from torch_dag_core.atomic_files import check_writable

F = TypeVar("F", bound=Callable[..., Any])

_FORCE = "torch_dag_core.cli.force"
_OUTPUTS = "torch_dag_core.cli.outputs"
_INPUTS = ("reference", "weights", "file")
"""Eager parameters of commands that name files which are read; see `model_choice.takes_model`."""


class OutputPath(click.Path):
    """A file that a command will write.

    Refused, as a wrong use of the command, are folders, devices, pipes and sockets, a file in a folder that does not
    exist, a file that the command reads, one path for two outputs, and without `may_overwrite`'s ``--force`` any file
    that exists.
    """

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path if it can be written to."""
        path = Path(value)
        try:
            target = check_writable(path)
        except OSError as error:
            self.fail(f"{str(path)!r}: {error.strerror}", param, ctx)
        if ctx is not None:
            self._check_others(target, path, param, ctx)
            if target.exists() and not ctx.meta.get(_FORCE):
                self.fail(
                    f"{str(path)!r} exists already; choose another path, or overwrite it with --force", param, ctx
                )
        return path

    def _check_others(self, target: Path, path: Path, param: click.Parameter | None, ctx: click.Context) -> None:
        read = [ctx.params.get(name) for name in _INPUTS]
        if any(isinstance(given, (str, Path)) and os.path.realpath(given) == str(target) for given in read):
            self.fail(f"{str(path)!r} is read by this command; choose another path", param, ctx)
        written = ctx.meta.setdefault(_OUTPUTS, {})
        name = param.name if param is not None else None
        if written.setdefault(target, name) != name:
            self.fail(f"{str(path)!r} is given for two outputs; choose another path for one", param, ctx)


def may_overwrite(command: F) -> F:
    """Give a command the flag ``--force``, which lets its `OutputPath` options take files that exist."""
    return click.option(
        "--force", is_flag=True, is_eager=True, expose_value=False, callback=_note, help="Overwrite files that exist."
    )(command)


def may_resume(command: F) -> F:
    """Give a command the flag ``--resume``, which lets its `OutputPath` take the file of an earlier run as well."""
    return click.option(
        "--resume", is_flag=True, is_eager=True, callback=_note, help="Go on with the file of an earlier run."
    )(command)


def _note(ctx: click.Context, _: click.Parameter, given: bool) -> bool:  # noqa: FBT001
    ctx.meta[_FORCE] = given or ctx.meta.get(_FORCE, False)
    return given
