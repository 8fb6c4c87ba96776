"""The command ``torch-dag export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from torch_dag_core.cli.answers import answer, answers, say, step
from torch_dag_core.cli.console import console
from torch_dag_core.cli.examples import example
from torch_dag_core.cli.model_options import takes_model
from torch_dag_core.cli.output_path import OutputPath, may_overwrite

if TYPE_CHECKING:
    from torch_dag_core.cli.model_choice import ModelChoice
    from torch_dag_export.format import ExportFormat


@click.command(epilog=example("torch-dag export timm:resnet18 --size 3,64,64 --to pt2 --out resnet18.pt2"))
@takes_model
@click.option(
    "--to",
    "name",
    metavar="FORMAT",
    help="pt2, onnx, python, or one of a plugin; the ending of the file's name says it by default.",
)
@click.option("-o", "--out", type=OutputPath(), required=True, help="Where to write the model.")
@click.option("--fixed-batch", is_flag=True, help="Fix the batch size of the example input instead of leaving it free.")
@click.option("--no-check", is_flag=True, help="Do not run the written model and compare it with the graph.")
@click.option("--tolerance", type=float, help="Relative difference that is accepted.  [default: 1e-4 for float32]")
@may_overwrite
@answers
def export(
    *, choice: ModelChoice, name: str | None, out: Path, fixed_batch: bool, no_check: bool, tolerance: float | None
) -> None:  # fmt: skip
    """Write MODEL in a format that other runtimes load, and compare what was written with the graph.

    The written model is loaded in its runtime and run on two batch sizes. If its outputs differ from those of the
    graph, the command fails and writes nothing.
    """
    if no_check and tolerance is not None:
        message = "--no-check and --tolerance contradict each other; give one of them"
        raise click.UsageError(message)
    from torch_dag_export.cli.table import report_table
    from torch_dag_export.exporting import export as export_graph

    used = _format(name, out)
    with console().status(f"converting {choice.reference}"):
        dag = choice.graph()
    with console().status(f"exporting to {used.name}"), step(f"exporting to {used.name}"):
        report = export_graph(
            dag, out, format=used.name, example_inputs=choice.inputs(), free_batch=not fixed_batch,
            check=not no_check if tolerance is None else tolerance,
        )  # fmt: skip
    say(report_table(report))
    say(f"wrote {' and '.join(map(str, report.files))}: {used.description}")
    answer(model=choice.reference, **report.facts())


def _format(name: str | None, out: Path) -> ExportFormat:
    """Return the format, whose packages are installed and whose further files may be written.

    Raises:
        click.UsageError: there is no such format, or a file that it writes beside the named one exists.
    """
    from torch_dag_export.errors import UnknownFormatError
    from torch_dag_export.format import find_format

    try:
        used = find_format(name, out)
    except UnknownFormatError as error:
        raise click.UsageError(str(error)) from error
    used.require_packages()
    context = click.get_current_context()
    for place, file in enumerate(used.files(out)[1:]):
        OutputPath().convert(file, click.Option([f"--out-{place}"]), context)
    return used
