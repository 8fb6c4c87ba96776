"""An algorithm run on a model from the command line: report, result, what changed, and the file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from torch import nn

from torch_dag_core.algorithms.algorithm import Algorithm, AlgorithmSpec
from torch_dag_core.algorithms.compression import CompressionAlgorithm
from torch_dag_core.algorithms.reports import CompressionReport
from torch_dag_core.cli.answers import answer, say
from torch_dag_core.cli.before_after import Measure, before_after, measures
from torch_dag_core.cli.calibration import Amount, read_calibration
from torch_dag_core.cli.console import console
from torch_dag_core.cli.model_choice import ModelChoice
from torch_dag_core.cli.saved_file import loading_lines, needed_distributions
from torch_dag_core.cli.tensor_sizes import changed_sizes, sizes_table
from torch_dag_core.conversion.report import conversion_report
from torch_dag_core.errors import SettingsError
from torch_dag_core.graph.dag import DagModule


@dataclass(frozen=True)
class Run:
    """What the user asked for.

    Attributes:
        spec: The algorithm.
        choice: The model.
        settings: Of the algorithm, by name.
        out: Where to save the result; None does not save it.
        only_analyze: Whether to stop after the report.
        calibrate: The data that the algorithm is to look at; None for none.
        samples: How many samples of it are read at most.
    """

    spec: AlgorithmSpec
    choice: ModelChoice
    settings: Mapping[str, Any]
    out: Path | None
    only_analyze: bool
    calibrate: str | None = None
    samples: int = Amount.samples


def execute(run: Run) -> None:
    """Run an algorithm that needs no training on a model, say what it found and did, and save what comes of it.

    Raises:
        SettingsError: a setting is wrong, or the algorithm learns what to do and so needs a training loop, or it does
            not look at data and there is some.
    """
    config = run.spec.configure(**run.settings)
    if run.out is None and not run.only_analyze:
        say("nothing will be saved; --out saves the result")
    with _steps(3) as steps:
        steps.start(f"converting {run.choice.reference}")
        model = run.choice.model()
        dag = run.choice.graph(model)
        steps.start("analysing")
        algorithm = run.spec.start(dag, config)
        report = algorithm.analyze()
        if run.calibrate is not None and not run.only_analyze:
            steps.start(f"reading {run.calibrate}")
            _calibrate(run, algorithm, model, dag)
    if not isinstance(model, DagModule):
        say(conversion_report(dag))
    say(str(report))
    if run.only_analyze:
        answer(**_analysed(run, report))
    else:
        _carry_out(run, algorithm, dag, report)


def _calibrate(run: Run, algorithm: Algorithm, model: nn.Module, dag: DagModule) -> None:
    """Let an algorithm look at the data that the user named."""
    assert run.calibrate is not None
    if not isinstance(algorithm, CompressionAlgorithm) or not algorithm.looks_at_data:
        message = f"{run.spec.name} does not look at data with these settings; leave out --calibrate"
        raise SettingsError(message)
    amount = Amount(run.samples)
    batches = read_calibration(run.calibrate, model, run.choice.reference, dag, amount)
    algorithm.calibrate([run.choice.placed(batch) for batch in batches])


def _carry_out(run: Run, algorithm: Algorithm, dag: DagModule, report: CompressionReport) -> None:
    spec, out = run.spec, run.out
    if spec.trains and spec.status != "stub":
        _refuse_training(spec)
    measured: list[Measure] = []
    with _steps(3) as steps:
        if isinstance(algorithm, CompressionAlgorithm):
            algorithm.progress = steps.within
        steps.start("preparing")
        algorithm.prepare()
        share = float(algorithm.losses(0).cost_share)
        steps.start("removing and comparing")
        result = algorithm.finalize()
        if out is not None:
            steps.start("saving and measuring")
            result.save(out)
            measured = list(measures(dag, result, out))
    say(f"{spec.name}: {share:.2%} of the cost is left")
    conclusion = algorithm.conclusion() if isinstance(algorithm, CompressionAlgorithm) else ""
    if conclusion:
        say(conclusion)
    changes = changed_sizes(dag, result)
    if changes:
        say(sizes_table(changes))
    if out is not None:
        say(before_after(measured))
        say(loading_lines(out, result))
        say(_next_steps(run, algorithm, out))
    answer(
        **_analysed(run, report), cost_share=share, conclusion=conclusion, file=out, sizes=changes,
        needs=needed_distributions(result),
        **{each.key: {"before": each.before, "after": each.after} for each in measured},
    )  # fmt: skip


def _next_steps(run: Run, algorithm: Algorithm, out: Path) -> str:
    """Return what a user may do with the saved result."""
    steps = ["train it like any nn.Module", f"see its cost by module with `torch-dag flops {out}`"]
    if run.calibrate is None and isinstance(algorithm, CompressionAlgorithm) and algorithm.looks_at_data:
        steps.insert(0, "repeat with --calibrate DATA, which repairs its weights")
    return f"next: {', or '.join(steps)}"


def _analysed(run: Run, report: CompressionReport) -> dict[str, Any]:
    """Return what an analysis found, for programs."""
    return {
        "algorithm": run.spec.name,
        "model": run.choice.reference,
        "removable_share": report.removable_share,
        "candidates": [{"name": each.name, "flops": each.flops} for each in report.candidates],
        "left": [{"name": each.name, "flops": each.flops, "reason": each.reason} for each in report.skipped],
    }


def _refuse_training(spec: AlgorithmSpec) -> None:
    message = (
        f"{spec.name} learns what to remove, which takes data and a training loop: start it in Python, train what "
        "prepare() returns with losses(step) added, and call finalize(); --analyze shows what could go"
    )
    raise SettingsError(message)


class _Steps:
    """Which of several steps is going on, shown on a progress display if there is one."""

    def __init__(self, total: int, display: Progress | None) -> None:
        self._display, self._started, self._description = display, 0, "starting"
        self._task = None if display is None else display.add_task(self._description, total=total)

    def start(self, description: str) -> None:
        """Begin a step."""
        self._description = description
        self._show(description)
        self._started += 1

    def within(self, what: str, done: int, total: int) -> None:
        """Show how far a part of the step is: ``done`` of ``total``."""
        self._show(f"{self._description}: {what} {done}/{total}", going_on=True)

    def _show(self, description: str, *, going_on: bool = False) -> None:
        if self._display is not None and self._task is not None:
            completed = self._started - going_on
            self._display.update(self._task, completed=completed, description=description)


@contextmanager
def _steps(total: int) -> Iterator[_Steps]:
    """Show on standard error which of so many steps is going on, and for how long; in a terminal only."""
    shown_on = console()
    if not shown_on.is_interactive or shown_on.quiet:
        yield _Steps(total, None)
        return
    columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeElapsedColumn(), console=shown_on, transient=True) as progress:
        yield _Steps(total, progress)
