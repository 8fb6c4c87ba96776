"""The commands ``torch-dag convert`` and ``torch-dag show``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from torch_dag_core.cli.answers import answer, answers, say
from torch_dag_core.cli.console import console
from torch_dag_core.cli.model_choice import ModelChoice, takes_model
from torch_dag_core.cli.output_path import OutputPath, may_overwrite
from torch_dag_core.cli.quantities import size
from torch_dag_core.conversion.report import conversion_report
from torch_dag_core.graph.dag import DagModule


@click.command()
@takes_model
@click.option("-o", "--out", type=OutputPath(), required=True, help="Where to save (.safetensors).")
@may_overwrite
@answers
def convert(choice: ModelChoice, out: Path) -> None:
    """Convert MODEL into a graph and save it in one file that loads without its source."""
    with console().status(f"converting {choice.reference}"):
        dag = choice.graph()
    say(conversion_report(dag))
    dag.save(out)
    say(loading_lines(out))
    answer(model=choice.reference, file=out, file_bytes=out.stat().st_size, **facts(dag))


@click.command()
@takes_model
@click.option("--summary", is_flag=True, help="Counts instead of every vertex.")
def show(choice: ModelChoice, summary: bool) -> None:  # noqa: FBT001
    """Print the graph of MODEL, one line a vertex."""
    dag = choice.graph()
    click.echo(dag.summary() if summary else str(dag))


def facts(dag: DagModule) -> dict[str, Any]:
    """Return what programs want to know of a converted graph."""
    ops = Counter(type(vertex.module).__name__ for vertex in dag.inner_vertices)
    return {
        "vertices": len(dag.inner_vertices),
        "ops": dict(ops.most_common()),
        "parameters": sum(parameter.numel() for parameter in dag.parameters()),
        "inputs": [{"shape": spec.shape, "dtype": spec.dtype} for spec in dag.input_spec.tensors],
        "notes": dag.input_spec.notes,
    }


def loading_lines(path: Path) -> str:
    """Return a message that names the saved file and shows the Python code that loads it."""
    return (
        f"saved {path} ({size(path.stat().st_size)}); to load it, with neither the model's source nor its plugins:\n\n"
        f"    import torch_dag_core as td\n"
        f"    model = td.load({str(path)!r})\n"
        f"    output = model(images)\n"
    )
