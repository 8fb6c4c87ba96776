"""The commands ``torch-dag convert`` and ``torch-dag show``."""

from __future__ import annotations

from pathlib import Path

import click

from torch_dag_core.cli.console import console
from torch_dag_core.cli.model_choice import ModelChoice, takes_model
from torch_dag_core.cli.output_path import OutputPath, may_overwrite
from torch_dag_core.conversion.report import conversion_report


@click.command()
@takes_model
@click.option("-o", "--out", type=OutputPath(), required=True, help="Where to save (.safetensors).")
@may_overwrite
def convert(choice: ModelChoice, out: Path) -> None:
    """Convert MODEL into a graph and save it in one file that loads without its source."""
    with console().status(f"converting {choice.reference}"):
        dag = choice.graph()
    click.echo(conversion_report(dag))
    dag.save(out)
    click.echo(loading_lines(out))


@click.command()
@takes_model
@click.option("--summary", is_flag=True, help="Counts instead of every vertex.")
def show(choice: ModelChoice, summary: bool) -> None:  # noqa: FBT001
    """Print the graph of MODEL, one line a vertex."""
    dag = choice.graph()
    click.echo(dag.summary() if summary else str(dag))


def loading_lines(path: Path) -> str:
    """Return a message that names the saved file and shows the Python code that loads it."""
    size = path.stat().st_size / 1e6
    return (
        f"saved {path} ({size:.1f} MB); to load it, with neither the model's source nor its plugins:\n\n"
        f"    import torch_dag_core as td\n"
        f"    model = td.load({str(path)!r})\n"
        f"    output = model(images)\n"
    )
