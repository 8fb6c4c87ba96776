"""An algorithm run on a model from the command line: report, result, what changed, and the file."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from torch_dag_core.algorithms.algorithm import Algorithm, AlgorithmSpec
from torch_dag_core.algorithms.compression import CompressionAlgorithm
from torch_dag_core.cli.before_after import before_after
from torch_dag_core.cli.convert import loading_lines
from torch_dag_core.cli.model_choice import ModelChoice
from torch_dag_core.conversion.report import conversion_report
from torch_dag_core.errors import SettingsError
from torch_dag_core.graph.dag import DagModule

if TYPE_CHECKING:
    from rich.table import Table


def execute(
    spec: AlgorithmSpec, choice: ModelChoice, settings: Mapping[str, Any], out: Path | None, *, only_analyze: bool
) -> None:
    """Run an algorithm that needs no training on a model, say what it found and did, and save what comes of it.

    Args:
        spec: The algorithm.
        choice: The model.
        settings: Of the algorithm, by name.
        out: Where to save the result; None does not save it.
        only_analyze: Whether to stop after the report.

    Raises:
        SettingsError: a setting is wrong, or the algorithm learns what to do and so needs a training loop.
    """
    config = spec.configure(**settings)
    if out is None and not only_analyze:
        click.echo("nothing will be saved; --out saves the result")
    with _steps(2) as step:
        step(f"converting {choice.reference}")
        model = choice.model()
        dag = _sized(choice.graph(model), choice.size)
        step("analysing")
        algorithm = spec.start(dag, config)
        report = algorithm.analyze()
    if not isinstance(model, DagModule):
        click.echo(conversion_report(dag))
    click.echo(str(report))
    if not only_analyze:
        _carry_out(spec, algorithm, dag, out)


def _carry_out(spec: AlgorithmSpec, algorithm: Algorithm, dag: DagModule, out: Path | None) -> None:
    if spec.trains and spec.status != "stub":
        _refuse_training(spec)
    table: Table | None = None
    with _steps(3) as step:
        step("preparing")
        algorithm.prepare()
        share = float(algorithm.losses(0).cost_share)
        step("removing and comparing")
        result = algorithm.finalize()
        if out is not None:
            step("saving and measuring")
            result.save(out)
            table = before_after(dag, result, out)
    click.echo(f"{spec.name}: {share:.2%} of the cost is left")
    conclusion = algorithm.conclusion() if isinstance(algorithm, CompressionAlgorithm) else ""
    if conclusion:
        click.echo(conclusion)
    if table is not None and out is not None:
        Console().print(table)
        click.echo(loading_lines(out))


def _sized(dag: DagModule, size: tuple[int, ...] | None) -> DagModule:
    """Let a graph that was loaded remember the size that was asked for, instead of its own."""
    if size is not None and dag.input_spec.tensors:
        first, *rest = dag.input_spec.tensors
        batch = (first.example_shape or (2,))[0]
        sized = dataclasses.replace(first, example_shape=(batch, *size))
        dag.input_spec = dataclasses.replace(dag.input_spec, tensors=(sized, *rest))
    return dag


def _refuse_training(spec: AlgorithmSpec) -> None:
    message = (
        f"{spec.name} learns what to remove, which takes data and a training loop: start it in Python, train what "
        "prepare() returns with losses(step) added, and call finalize(); --analyze shows what could go"
    )
    raise SettingsError(message)


@contextmanager
def _steps(total: int) -> Iterator[Callable[[str], None]]:
    """Show on standard error which of so many steps is going on, and for how long; in a terminal only."""
    shown_on = Console(stderr=True)
    if not shown_on.is_interactive:
        yield lambda _: None
        return
    columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeElapsedColumn(), console=shown_on, transient=True) as progress:
        task, done = progress.add_task("starting", total=total), itertools.count()
        yield lambda description: progress.update(task, completed=next(done), description=description)
