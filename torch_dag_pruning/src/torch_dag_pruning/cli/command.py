"""The command ``torch-dag prune``."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from torch_dag_core.cli.convert import loading_lines
from torch_dag_core.cli.model_choice import ModelChoice, takes_model
from torch_dag_core.cli.output_path import OutputPath, may_overwrite


@click.command()
@takes_model
@click.option("--keep-flops", type=float, required=True, help="Share of the FLOPs that may stay, such as 0.5.")
@click.option("--criterion", default="l2", show_default=True, help="How slots are scored.")
@click.option("--scope", type=click.Choice(["global", "local"]), default="global", show_default=True)
@click.option("--multiple-of", type=int, default=1, show_default=True, help="Make widths multiples of this.")
@click.option("--save-plan", type=OutputPath(), help="Where to write what was kept, as JSON.")
@click.option("-o", "--out", type=OutputPath(), required=True, help="Where to save (.safetensors).")
@may_overwrite
def prune(  # noqa: PLR0913
    *, choice: ModelChoice, keep_flops: float, criterion: str, scope: str, multiple_of: int, save_plan: Path | None,
    out: Path,
) -> None:  # fmt: skip
    """Remove the least important channels of MODEL and save what is left.

    Nothing is trained: expect to fine-tune the result.
    """
    from torch_dag_core.conversion.report import conversion_report
    from torch_dag_pruning.cli.tables import costs_table
    from torch_dag_pruning.one_shot import OneShot

    console = Console()
    with _steps(5) as step:
        step(f"converting {choice.reference}")
        run = OneShot.of(choice.graph(), choice.example())
        step("choosing what stays")
        run.choose(criterion, keep_flops, scope=scope, multiple_of=multiple_of)
        step("removing")
        run.remove()
        step("comparing masked with removed")
        run.prove()
        step("saving and measuring")
        run.finish(out, save_plan)
    console.print(conversion_report(run.dag), highlight=False, soft_wrap=True)
    console.print(str(run.analysis), highlight=False, soft_wrap=True)
    console.print(costs_table(run.before, run.after, run.timed_on))
    console.print(str(run.proof), highlight=False, soft_wrap=True)
    console.print(loading_lines(out), highlight=False, soft_wrap=True)


@contextmanager
def _steps(total: int) -> Iterator[Callable[[str], None]]:
    """Show on standard error which of so many steps is going on, and for how long."""
    columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as progress:
        task, done = progress.add_task("starting", total=total), itertools.count()
        yield lambda description: progress.update(task, completed=next(done), description=description)
